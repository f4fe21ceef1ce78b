import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "react-router";
import { type Answer, ask } from "../api";
import { Listed, useList } from "../list";
import { When } from "../parts";
import { useNames } from "../useNames";
import type { Detail, Version } from "./shapes";

/** All that it has been, the newest first. */
export function Versions({ path, current, shown }: { path: string; current: number | null; shown: number | null }) {
  const id = decodeURIComponent(path.split("/").at(-1) ?? "");
  const list = useList<Version>(["assistant", id, "versions"], `${path}/versions`);
  const nameOf = useNames();
  return (
    <section className="card" aria-labelledby="versions">
      <h2 id="versions">Versions</h2>
      <Listed list={list} what="versions" empty={null}>
        <ol className="plain versions">
          {list.items.map(({ number, created_at, created_by }) => (
            <li key={number}>
              <Link to={number === current ? `/assistants/${id}` : `/assistants/${id}?version=${number}`} aria-current={number === shown ? "true" : undefined}>
                Version {number}
              </Link>
              {number === current && " (now)"}
              <small>
                <When at={created_at} />, {nameOf(created_by)}
              </small>
            </li>
          ))}
        </ol>
      </Listed>
    </section>
  );
}

/** Brings a version back as a new one, and shows it. */
export function useRestore(path: string, current: Answer<Detail>, number: number) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const { id } = current.body;
  return useMutation({
    mutationFn: () =>
      ask<Detail>("POST", `${path}/versions/${number}/restore`, current.etag === null ? {} : { ifMatch: current.etag }),
    onSuccess: (fresh) => {
      client.setQueryData(["assistant", id], fresh);
      void client.invalidateQueries({ queryKey: ["assistant", id, "versions"] });
      void client.invalidateQueries({ queryKey: ["assistants"] });
      void navigate(`/assistants/${id}`);
    },
    onError: () => void client.invalidateQueries({ queryKey: ["assistant", id] }),
  });
}
