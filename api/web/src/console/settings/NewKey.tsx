import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { ask } from "../api";
import { Entry, Ticks, Unplaced, useFirstProblem, wrong } from "../fields";
import { useMe } from "../me";
import type { KeyWithSecret } from "./Keys";

const LIVES = [30, 90, 365] as const;
const DAY_MS = 86_400_000;

/** One gives no more than one has. */
export function NewKey({ made, cancel }: { made: (key: KeyWithSecret) => void; cancel: () => void }) {
  const mine = useMe().data?.scopes ?? [];
  const form = useRef<HTMLFormElement>(null);
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>([]);
  const [days, setDays] = useState("90");
  const make = useMutation({
    mutationFn: () => {
      const expires_at = days ? new Date(Date.now() + Number(days) * DAY_MS).toISOString() : null;
      return ask<KeyWithSecret>("POST", "/keys", { body: { name, scopes, expires_at } });
    },
    onSuccess: ({ body }) => made(body),
  });
  useFirstProblem(form, make.error);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    make.mutate();
  };
  return (
    <form ref={form} className="card" aria-label="New key" noValidate onSubmit={submit}>
      <div className="entries">
        <Entry label="Name" hint="Of the program that will use it." problem={wrong(make.error, "name")}>
          {(tie) => <input {...tie} autoFocus maxLength={200} value={name} onChange={(event) => setName(event.target.value)} />}
        </Entry>
        <Entry label="Expires" problem={wrong(make.error, "expires_at")}>
          {(tie) => (
            <select {...tie} value={days} onChange={(event) => setDays(event.target.value)}>
              {LIVES.map((life) => (
                <option key={life} value={life}>
                  in {life} days
                </option>
              ))}
              <option value="">never</option>
            </select>
          )}
        </Entry>
        <Ticks
          label="Scopes"
          hint="No more than the program needs; calls:read and files:read show what people said."
          problem={wrong(make.error, "scopes")}
          choices={mine}
          ticked={scopes}
          change={setScopes}
        />
      </div>
      <Unplaced error={make.error} fields={["name", "scopes", "expires_at"]} />
      <div className="page-actions">
        <button type="submit" className="button button-small" disabled={make.isPending}>
          {make.isPending ? "Creating…" : "Create key"}
        </button>
        <button type="button" className="button-quiet" onClick={cancel}>
          Cancel
        </button>
      </div>
    </form>
  );
}
