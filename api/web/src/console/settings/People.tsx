import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { ask } from "../api";
import { Confirm } from "../Confirm";
import { Listed, useList } from "../list";
import { type Role, useMay, useMe } from "../me";
import { Badge, Empty, When } from "../parts";

interface Person {
  id: string;
  name: string;
  email: string;
  issuer: string;
  role: Role;
  seen_at: string | null;
  disabled_at: string | null;
}

const ROLES: readonly Role[] = ["viewer", "operator", "engineer", "owner"];

/** Who signs in, and what they may do. */
export function People() {
  const list = useList<Person>(["people"], "/people");
  return (
    <section aria-labelledby="part">
      <div className="part-head">
        <h2 id="part">People</h2>
      </div>
      <p className="hint">
        A viewer sees calls, assistants, models and usage. An operator also ends and deletes calls, and runs webhooks; an engineer also
        changes assistants and their files; an owner also people, keys and the tenant.
      </p>
      <Listed
        list={list}
        what="people"
        empty={
          <Empty title="Nobody has signed in yet">
            People are here once they sign in with the issuer of <code>api.oidc</code> in the profile, which also says who gets which role.
          </Empty>
        }
      >
        <ul className="items">
          {list.items.map((person) => (
            <Row key={`${person.id} ${person.role}`} person={person} />
          ))}
        </ul>
      </Listed>
    </section>
  );
}

function Row({ person }: { person: Person }) {
  const may = useMay();
  const me = useMe().data;
  const client = useQueryClient();
  const confirm = useRef<HTMLDialogElement>(null);
  const [role, setRole] = useState(person.role);
  const change = useMutation({
    mutationFn: (body: { role?: Role; disabled?: boolean }) => ask<Person>("PATCH", `/people/${person.id}`, { body }),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["people"] });
      if (person.id === me?.id) void client.invalidateQueries({ queryKey: ["me"] });
    },
  });
  const name = person.name || person.email || person.id;
  return (
    <li className="item">
      <div className="item-about">
        <h3>
          {name} {person.id === me?.id && <Badge kind="quiet">You</Badge>} {person.disabled_at && <Badge kind="warn">Not let in</Badge>}
        </h3>
        <p>{person.email}</p>
        <p className="item-meta">
          {person.issuer}, {person.seen_at ? <>signed in last <When at={person.seen_at} /></> : "never signed in"}
        </p>
        {change.error && <p role="alert">{change.error.message}</p>}
      </div>
      <div className="item-actions">
        {may("people:write") ? (
          <>
            <label className="field">
              <span>
                Role<span className="visually-hidden"> of {name}</span>
              </span>
              <select value={role} onChange={(event) => setRole(event.target.value as Role)}>
                {ROLES.map((each) => (
                  <option key={each}>{each}</option>
                ))}
              </select>
            </label>
            {role !== person.role && (
              <button type="button" className="button button-small" disabled={change.isPending} onClick={() => change.mutate({ role })}>
                Make {role}
              </button>
            )}
            <button
              type="button"
              className="button-quiet"
              disabled={change.isPending}
              onClick={() => (person.disabled_at ? change.mutate({ disabled: false }) : confirm.current?.showModal())}
            >
              {person.disabled_at ? "Let in again" : "Disable"}
              <span className="visually-hidden"> {name}</span>
            </button>
          </>
        ) : (
          <Badge kind="quiet">{person.role}</Badge>
        )}
      </div>
      <Confirm ref={confirm} title={`Let ${name} in no more?`} action="Disable" onConfirm={() => change.mutate({ disabled: true })}>
        They are signed out at once. Keys that they made go on working: revoke those under API keys.
      </Confirm>
    </li>
  );
}
