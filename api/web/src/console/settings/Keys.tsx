import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { useSearchParams } from "react-router";
import { ask } from "../api";
import { Confirm } from "../Confirm";
import { Listed, useList } from "../list";
import { useMay } from "../me";
import { Badge, Empty, When } from "../parts";
import { NewKey } from "./NewKey";
import { Secret } from "./Secret";

export interface Key {
  id: string;
  name: string;
  prefix: string;
  scopes: string[];
  created_at: string;
  expires_at: string | null;
  used_at: string | null;
  revoked_at: string | null;
}

export interface KeyWithSecret extends Key {
  key: string;
}

/** Keys with which programs ask. */
export function Keys() {
  const may = useMay();
  const client = useQueryClient();
  const [address, setAddress] = useSearchParams();
  const all = address.get("show") === "all";
  const list = useList<Key>(["keys"], "/keys", { alive: all ? null : "true" });
  const [making, setMaking] = useState(false);
  const [fresh, setFresh] = useState<KeyWithSecret | null>(null);
  const made = (key: KeyWithSecret) => {
    setMaking(false);
    setFresh(key);
    void client.invalidateQueries({ queryKey: ["keys"] });
  };
  return (
    <section aria-labelledby="part">
      <div className="part-head">
        <h2 id="part">API keys</h2>
        <label className="tick">
          <input type="checkbox" checked={all} onChange={(event) => setAddress(event.target.checked ? { show: "all" } : {}, { replace: true })} />
          Show revoked and expired ones
        </label>
        {may("keys:write") && !making && (
          <button type="button" className="button button-small" onClick={() => setMaking(true)}>
            New key
          </button>
        )}
      </div>
      {fresh && (
        <Secret title={`The key ${fresh.name}`} value={fresh.key} done={() => setFresh(null)}>
          Send it as <code>Authorization: Bearer</code>.
        </Secret>
      )}
      {making && <NewKey made={made} cancel={() => setMaking(false)} />}
      <Listed
        list={list}
        what="keys"
        empty={
          <Empty title={all ? "No keys" : "No key is in use"}>
            {may("keys:write") ? "Make one for each program that asks: each can be revoked by itself." : "An owner makes them."}
          </Empty>
        }
      >
        <ul className="items">
          {list.items.map((key) => (
            <Row key={key.id} item={key} made={made} />
          ))}
        </ul>
      </Listed>
    </section>
  );
}

function Row({ item, made }: { item: Key; made: (key: KeyWithSecret) => void }) {
  const may = useMay();
  const client = useQueryClient();
  const confirm = useRef<HTMLDialogElement>(null);
  const rotate = useMutation({
    mutationFn: () => ask<KeyWithSecret>("POST", `/keys/${item.id}/rotate`, { body: { expires_at: sameLife(item) } }),
    onSuccess: ({ body }) => made(body),
  });
  const revoke = useMutation({
    mutationFn: () => ask("DELETE", `/keys/${item.id}`),
    onSuccess: () => void client.invalidateQueries({ queryKey: ["keys"] }),
  });
  const expired = item.expires_at !== null && Date.parse(item.expires_at) <= Date.now();
  const failed = rotate.error ?? revoke.error;
  return (
    <li className="item">
      <div className="item-about">
        <h3>
          {item.name} {item.revoked_at ? <Badge kind="warn">Revoked</Badge> : expired && <Badge kind="warn">Expired</Badge>}
        </h3>
        <p>
          <code>{item.prefix}…</code>
        </p>
        <p className="item-meta">
          Made <When at={item.created_at} />, {item.used_at ? <>last used <When at={item.used_at} /></> : "never used"},{" "}
          {item.revoked_at ? (
            <>
              revoked <When at={item.revoked_at} />
            </>
          ) : item.expires_at ? (
            <>
              {expired ? "expired" : "expires"} <When at={item.expires_at} />
            </>
          ) : (
            "does not expire"
          )}
        </p>
        <p className="item-meta">May: {item.scopes.join(", ")}</p>
        {failed && <p role="alert">{failed.message}</p>}
      </div>
      {may("keys:write") && item.revoked_at === null && (
        <div className="item-actions">
          {!expired && (
            <button type="button" className="button-quiet" disabled={rotate.isPending} onClick={() => rotate.mutate()}>
              Rotate<span className="visually-hidden"> {item.name}</span>
            </button>
          )}
          <button type="button" className="button-quiet" disabled={revoke.isPending} onClick={() => confirm.current?.showModal()}>
            Revoke<span className="visually-hidden"> {item.name}</span>
          </button>
        </div>
      )}
      <Confirm ref={confirm} title={`Revoke ${item.name}?`} action="Revoke" onConfirm={() => revoke.mutate()}>
        Whoever uses <code>{item.prefix}…</code> is let in no more, within five seconds.
      </Confirm>
    </li>
  );
}

/** A key's successor lives as long as it did. */
function sameLife({ created_at, expires_at }: Key): string | null {
  if (expires_at === null) return null;
  return new Date(Date.now() + Date.parse(expires_at) - Date.parse(created_at)).toISOString();
}
