import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useRef } from "react";
import { type Answer, ask } from "../api";
import { Conflict, SaveLine, useDraft, useLeaving, useSave } from "../draft";
import { Entry, Unplaced, useFirstProblem, wrong } from "../fields";
import { useMay } from "../me";
import { Loading, Trouble } from "../parts";

type Limit = "calls" | "minutes" | "uploads" | "requests";

interface TenantShown {
  id: string;
  name: string;
  limits: Record<Limit, number | null>;
  own_limits: Partial<Record<Limit, number>>;
  keep_days: number | null;
}

const LIMITS: Record<Limit, { label: string; unit: string }> = {
  calls: { label: "Calls", unit: "at once" },
  minutes: { label: "Talk time", unit: "minutes in a calendar month (UTC)" },
  uploads: { label: "Uploads", unit: "at once" },
  requests: { label: "Requests", unit: "in a second" },
};
const NAMES = Object.keys(LIMITS) as Limit[];
const FIELDS = ["name", "keep_days", ...NAMES.map((name) => `limits.${name}`)];

/** The tenant's name, what it may use, how long it keeps calls. */
export function Tenant() {
  const read = useQuery({ queryKey: ["tenant"], queryFn: ({ signal }) => ask<TenantShown>("GET", "/tenant", { signal }) });
  const may = useMay();
  if (read.isPending) return <Loading what="the tenant" />;
  if (read.isError) return <Trouble error={read.error} again={() => void read.refetch()} />;
  return (
    <section aria-labelledby="part">
      <div className="part-head">
        <h2 id="part">Tenant</h2>
        <code>{read.data.body.id}</code>
      </div>
      <Change answer={read.data} />
      {may("calls:read") && (
        <section className="card" aria-labelledby="export">
          <h2 id="export">Export</h2>
          <p className="hint">All calls with what was said, a JSON object on each line.</p>
          <a className="button-line" href="/api/v1/export" download="calls.ndjson">
            Download all calls
          </a>
        </section>
      )}
    </section>
  );
}

interface Draft {
  name: string;
  keep: string;
  limits: Record<Limit, string>;
}

function draftOf(tenant: TenantShown): Draft {
  const own = Object.fromEntries(NAMES.map((name) => [name, String(tenant.own_limits[name] ?? "")])) as Record<Limit, string>;
  return { name: tenant.name, keep: String(tenant.keep_days ?? ""), limits: own };
}

/** Numbers as numbers, nothing as null; what is no number goes as it is, and the API says what would be right. */
function amount(text: string): number | string | null {
  if (text.trim() === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

function Change({ answer }: { answer: Answer<TenantShown> }) {
  const may = useMay();
  const client = useQueryClient();
  const form = useRef<HTMLFormElement>(null);
  const { base, draft, setDraft, changed, take } = useDraft(answer, draftOf);
  const saving = useSave<TenantShown>({
    method: "PATCH",
    path: "/tenant",
    base,
    body: () => {
      const limits = Object.fromEntries(NAMES.map((name) => [name, amount(draft.limits[name])]));
      return { name: draft.name, keep_days: amount(draft.keep), limits };
    },
    take: (fresh) => {
      take(fresh);
      client.setQueryData(["tenant"], fresh);
      void client.invalidateQueries({ queryKey: ["me"] });
    },
  });
  useLeaving(changed);
  useFirstProblem(form, saving.error);
  const locked = !may("tenant:write");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    saving.save.mutate(false);
  };
  return (
    <form ref={form} className="card" aria-label="Tenant" noValidate onSubmit={submit}>
      <div className="entries">
        <Entry label="Name" problem={wrong(saving.error, "name")}>
          {(tie) => <input {...tie} readOnly={locked} maxLength={200} value={draft.name} onChange={(event) => setDraft({ ...draft, name: event.target.value })} />}
        </Entry>
        <Entry label="Calls are kept" unit="days" hint="Then a call is deleted with its transcript and files; empty: never." problem={wrong(saving.error, "keep_days")}>
          {(tie) => (
            <input {...tie} readOnly={locked} inputMode="numeric" placeholder="for ever" value={draft.keep} onChange={(event) => setDraft({ ...draft, keep: event.target.value })} />
          )}
        </Entry>
      </div>
      <h3>Limits</h3>
      <p className="hint">Less than the tenant is given, where you want less. Whoever runs the server gives more (parley tenants set).</p>
      <div className="entries">
        {NAMES.map((name) => (
          <Entry key={name} {...LIMITS[name]} hint={`Now: ${base.body.limits[name]?.toLocaleString() ?? "any number"}`} problem={wrong(saving.error, `limits.${name}`)}>
            {(tie) => (
              <input
                {...tie}
                readOnly={locked}
                inputMode="decimal"
                placeholder="as given"
                value={draft.limits[name]}
                onChange={(event) => setDraft({ ...draft, limits: { ...draft.limits, [name]: event.target.value } })}
              />
            )}
          </Entry>
        ))}
      </div>
      <Unplaced error={saving.error} fields={FIELDS} />
      <Conflict what="tenant" saving={saving} />
      {!locked && <SaveLine changed={changed} saving={saving} />}
    </form>
  );
}
