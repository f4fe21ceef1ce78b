import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useRef, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { seconds } from "../../call/turn";
import { type PageOf, ask, get, query } from "../api";
import { useMay } from "../me";
import { Badge, Empty, Fact, Loading, Trouble, When, length, money } from "../parts";
import { Confirm } from "../Confirm";
import { Events } from "./Events";
import { type Captions, Following } from "./Following";
import { type CallShown, MEDIA, type TurnShown, lasted, reasonOf } from "./shapes";
import { TurnRow } from "./TurnRow";
import { useNow } from "./useNow";

const PAGE = 100;

export default function CallPage() {
  const { id = "" } = useParams();
  const path = `/calls/${encodeURIComponent(id)}`;
  const client = useQueryClient();
  const call = useQuery({ queryKey: ["call", id], queryFn: ({ signal }) => get<CallShown>(path, signal) });
  const turns = useInfiniteQuery({
    queryKey: ["call", id, "turns"],
    queryFn: ({ pageParam, signal }) =>
      get<PageOf<TurnShown>>(`${path}/turns${query({ limit: PAGE, after: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const [captions, setCaptions] = useState<Captions>({ caller: "", assistant: "" });
  const told = useCallback(() => void client.invalidateQueries({ queryKey: ["call", id] }), [client, id]);

  if (call.isPending) return <Loading what="the call" />;
  if (call.isError) return <Trouble error={call.error} again={() => void call.refetch()} />;
  const live = call.data.status !== "ended";
  const said = turns.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <article className="call-page">
      <Head call={call.data} path={path} />
      {live && <Following path={path} take={setCaptions} told={told} />}
      <div className="call-columns">
        <section aria-labelledby="said">
          <h2 id="said">Transcript and timeline</h2>
          {turns.isError && <Trouble error={turns.error} again={() => void turns.refetch()} />}
          {said.length === 0 && !turns.isPending && !live && (
            <Empty title="Nothing was said">The caller left before there was a turn.</Empty>
          )}
          <ol className="turns">
            {said.map((turn) => (
              <TurnRow key={turn.id} turn={turn} currency={call.data.currency} />
            ))}
          </ol>
          {turns.hasNextPage && (
            <button type="button" className="button-quiet" onClick={() => void turns.fetchNextPage()}>
              Show more turns
            </button>
          )}
          {live && (captions.caller || captions.assistant) && (
            <div className="captions" aria-live="polite" aria-label="What is being said">
              {captions.caller && <p className="said-caller">{captions.caller}</p>}
              {captions.assistant && <p className="said-assistant">{captions.assistant}</p>}
            </div>
          )}
        </section>
        <aside className="call-side">
          <Costs call={call.data} />
          <People call={call.data} />
          <Events path={path} live={live} id={id} />
        </aside>
      </div>
    </article>
  );
}

function Head({ call, path }: { call: CallShown; path: string }) {
  const may = useMay();
  const navigate = useNavigate();
  const client = useQueryClient();
  const confirm = useRef<HTMLDialogElement>(null);
  const now = useNow(1000);
  const live = call.status !== "ended";
  const end = useMutation({
    mutationFn: () => ask("POST", `${path}/end`),
    onSettled: () => void client.invalidateQueries({ queryKey: ["call", call.id] }),
  });
  const remove = useMutation({
    mutationFn: () => ask("DELETE", path),
    onSuccess: () => {
      client.removeQueries({ queryKey: ["call", call.id] });
      void client.invalidateQueries({ queryKey: ["calls"] });
      void navigate("/calls");
    },
  });
  const took = lasted(call, now);
  return (
    <header className="call-head">
      <p className="crumb">
        <Link to="/calls">Calls</Link> / <code>{call.id}</code>
      </p>
      <div className="page-head">
        <h1>
          {call.caller || "Caller"} {live && <Badge kind="live">{call.status === "live" ? "Live" : "Waiting"}</Badge>}
        </h1>
        <div className="page-actions">
          {live && may("calls:write") && (
            <button type="button" className="button button-small" disabled={end.isPending} onClick={() => end.mutate()}>
              {end.isPending ? "Ending…" : "End call"}
            </button>
          )}
          {call.turns > 0 && <Downloads path={path} id={call.id} />}
          {may("calls:write") && (
            <button type="button" className="button-quiet" onClick={() => confirm.current?.showModal()}>
              Delete
            </button>
          )}
        </div>
      </div>
      {(end.error ?? remove.error) && <p role="alert">{(end.error ?? remove.error)?.message}</p>}
      <dl className="facts">
        <Fact name="Begun">
          <When at={call.created_at} />
        </Fact>
        <Fact name="Length">{took === null ? "not answered" : length(took)}</Fact>
        <Fact name="By">{MEDIA[call.medium] ?? call.medium}</Fact>
        <Fact name="Assistant">
          {call.assistant_id ? <Link to={`/assistants/${call.assistant_id}`}>{call.assistant}</Link> : call.assistant}
          {call.version !== null && ` (version ${call.version})`}
        </Fact>
        <Fact name="Turns">
          {call.turns}
          {call.interruptions > 0 && `, ${call.interruptions} interrupted`}
          {call.errors > 0 && `, ${call.errors} without an answer`}
        </Fact>
        <Fact name="Answer, median">{call.median_ms === null ? "–" : seconds(call.median_ms)}</Fact>
        <Fact name="Cost">{Number(call.cost) === 0 ? "–" : money(call.cost, call.currency)}</Fact>
        {!live && <Fact name="End">{reasonOf(call.reason)}</Fact>}
      </dl>
      <Confirm
        ref={confirm}
        title="Delete this call?"
        action={remove.isPending ? "Deleting…" : "Delete"}
        onConfirm={() => remove.mutate()}
      >
        Its transcript, events and files are gone for good. What it cost stays in the usage.
      </Confirm>
    </header>
  );
}

function Downloads({ path, id }: { path: string; id: string }) {
  return (
    <span className="downloads">
      Transcript:
      {[
        ["text", "text", "txt"],
        ["vtt", "WebVTT", "vtt"],
        ["json", "JSON", "json"],
      ].map(([format, name, ending]) => (
        <a key={format} href={`/api/v1${path}/transcript?format=${format}`} download={`${id}.${ending}`}>
          {name}
        </a>
      ))}
    </span>
  );
}

function Costs({ call }: { call: CallShown }) {
  if (call.usage.length === 0) return null;
  return (
    <section aria-labelledby="costs">
      <h2 id="costs">Models and cost</h2>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">Used</th>
            <th scope="col" className="figure">
              Cost
            </th>
          </tr>
        </thead>
        <tbody>
          {call.usage.map((used) => (
            <tr key={`${used.role} ${used.model}`}>
              <th scope="row">{used.model === "call" ? "Call" : used.model}</th>
              <td>
                {Object.entries(used.amounts)
                  .map(([unit, amount]) => `${amount.toLocaleString(undefined, { maximumFractionDigits: 2 })} ${unit.replaceAll("_", " ")}`)
                  .join(", ")}
              </td>
              <td className="figure">{Number(used.cost) === 0 ? "–" : money(used.cost, call.currency)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function People({ call }: { call: CallShown }) {
  if (call.participants.length === 0) return null;
  return (
    <section aria-labelledby="people">
      <h2 id="people">People</h2>
      <ul className="plain">
        {call.participants.map((person) => (
          <li key={person.identity + person.joined_at}>
            {person.name || person.identity} <small>{MEDIA[person.medium] ?? person.medium}</small>, <When at={person.joined_at} />
            {person.left_at && (
              <>
                {" "}
                to <When at={person.left_at} />
              </>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
