import { useQuery } from "@tanstack/react-query";
import { get } from "./api";
import { Loading, Trouble } from "./parts";

interface Ways {
  local: boolean;
  openid: boolean;
}

/** Leads to the issuer that the profile names, and back to where one was. */
export function SignIn() {
  const ways = useQuery({ queryKey: ["ways"], queryFn: ({ signal }) => get<Ways>("/sign-in", signal) });
  if (ways.isPending) return <Loading what="Parley" />;
  if (ways.isError) return <Trouble error={ways.error} again={() => void ways.refetch()} />;
  const here = window.location.pathname + window.location.search;
  return (
    <main className="sign-in">
      <h1>Parley console</h1>
      {ways.data.openid ? (
        <>
          <p>Calls, assistants, models and what they cost: for the people who run them.</p>
          <a className="button button-start" href={`/api/v1/sign-in/openid?next=${encodeURIComponent(here)}`}>
            Sign in
          </a>
        </>
      ) : (
        <p>
          Nobody can sign in here yet. Set <code>api.oidc</code> in the profile to your organisation&rsquo;s issuer.
        </p>
      )}
    </main>
  );
}
