import { useQuery } from "@tanstack/react-query";
import { type PageOf, get } from "./api";
import { useMay } from "./me";

interface Named {
  id: string;
  name: string;
}

const SELF: Record<string, string> = { per_local: "This machine's user", system: "Parley itself" };
const FRESH_MS = 60_000;

/** Names of people and keys by their ids, as far as one may read them; the id otherwise. */
export function useNames(): (id: string) => string {
  const may = useMay();
  const people = useQuery({
    queryKey: ["people", "names"],
    queryFn: ({ signal }) => get<PageOf<Named>>("/people?limit=200", signal),
    enabled: may("people:read"),
    staleTime: FRESH_MS,
  });
  const keys = useQuery({
    queryKey: ["keys", "names"],
    queryFn: ({ signal }) => get<PageOf<Named>>("/keys?limit=200", signal),
    enabled: may("keys:read"),
    staleTime: FRESH_MS,
  });
  const names = new Map([...(people.data?.items ?? []), ...(keys.data?.items ?? [])].map(({ id, name }) => [id, name]));
  return (id) => SELF[id] ?? (names.get(id) || id);
}
