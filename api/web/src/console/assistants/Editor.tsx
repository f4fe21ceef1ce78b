import { useQuery } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useId, useRef } from "react";
import { type PageOf, get } from "../api";
import { Entry, type Tie, Ticks, Unplaced, useFirstProblem, wrong } from "../fields";
import { useMay } from "../me";
import { type Definition, type Draft, ROLES, type Role, type Rules } from "./shapes";
import { LIMITS, TEXTS } from "./words";

interface Given {
  draft: Draft;
  /** Nothing can be changed: an old version, or the profile's. */
  locked: boolean;
  error: Error | null;
  change: (draft: Draft) => void;
  save: () => void;
  children?: ReactNode;
}

interface Part {
  definition: Definition;
  locked: boolean;
  problem: (field: string) => string | undefined;
  set: (change: Partial<Definition>) => void;
}

const SHOWN = ["description", "instructions", "greeting", "language", "voice", "max_tokens", "models", "tools", "mcp", "person"];
const FIELDS = [
  "name",
  ...[...SHOWN, "limits", "tool_limits", "file_characters", "texts"].map((field) => `definition.${field}`),
];

/** All that an assistant is, as a form. */
export function Editor({ draft, locked, error, change, save, children }: Given) {
  const form = useRef<HTMLFormElement>(null);
  useFirstProblem(form, error);
  const part: Part = {
    definition: draft.definition,
    locked,
    problem: (field) => wrong(error, `definition.${field}`),
    set: (changed) => change({ ...draft, definition: { ...draft.definition, ...changed } }),
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    save();
  };
  return (
    <form ref={form} className="editor" aria-label="Assistant" noValidate onSubmit={submit}>
      <Card title="Who it is">
        <Entry label="Name" hint="People see it, and other assistants hand over by it." problem={wrong(error, "name")} wide>
          {(tie) => (
            <input {...tie} maxLength={60} required readOnly={locked} value={draft.name} onChange={(event) => change({ ...draft, name: event.target.value })} />
          )}
        </Entry>
        <Words {...part} field="description" label="Description" hint="A line on what it is there for." />
        <Words {...part} field="instructions" label="Instructions" hint="What the language model is told. Ask for short spoken sentences." rows={8} />
        <Words {...part} field="greeting" label="Greeting" hint="Spoken first; empty: the caller begins." rows={2} />
      </Card>
      <Sound {...part} />
      <Tools {...part} />
      <Card title="Limits">
        {LIMITS.map(({ group, field, label, unit, hint }) => (
          <Entry key={field} label={label} unit={unit} hint={hint} problem={part.problem(group ? `${group}.${field}` : field)}>
            {(tie) => <Amount {...part} tie={tie} group={group} field={field} />}
          </Entry>
        ))}
      </Card>
      <Texts {...part} />
      <Unplaced error={error} fields={FIELDS} />
      {children}
    </form>
  );
}

function Card({ title, children }: { title: string; children: ReactNode }) {
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      <div className="entries">{children}</div>
    </section>
  );
}

type WordField = "description" | "instructions" | "greeting" | "language" | "voice" | "person";

function Words({ definition, locked, problem, set, field, label, hint, rows = 1 }: Part & { field: WordField; label: string; hint: ReactNode; rows?: number }) {
  const given = { readOnly: locked, value: definition[field] ?? "" };
  return (
    <Entry label={label} hint={hint} problem={problem(field)} wide={rows > 1 || field === "description"}>
      {(tie) =>
        rows > 1 ? (
          <textarea {...tie} {...given} rows={rows} onChange={(event) => set({ [field]: event.target.value })} />
        ) : (
          <input {...tie} {...given} onChange={(event) => set({ [field]: event.target.value })} />
        )
      }
    </Entry>
  );
}

interface Model {
  name: string;
  role: Role;
}

function Sound(part: Part) {
  const may = useMay();
  const models = useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => get<PageOf<Model>>("/models", signal),
    enabled: may("models:read"),
  });
  const chosen = part.definition.models;
  return (
    <Card title="Language, voice and models">
      <Words {...part} field="language" label="Language" hint="A tag such as en or de-DE; auto: the caller's." />
      <Words {...part} field="voice" label="Voice" hint="A name that the voice model knows; empty: its own." />
      {(Object.keys(ROLES) as Role[]).map((role) => {
        const known = (models.data?.items ?? []).filter((model) => model.role === role).map((model) => model.name);
        const now = chosen[role];
        const choices = now && !known.includes(now) ? [now, ...known] : known;
        return (
          <Entry key={role} label={ROLES[role]} problem={part.problem(`models.${role}`)}>
            {(tie) => (
              <select
                {...tie}
                disabled={part.locked}
                value={now ?? ""}
                onChange={(event) => {
                  const { [role]: _, ...others } = chosen;
                  part.set({ models: event.target.value ? { ...others, [role]: event.target.value } : others });
                }}
              >
                <option value="">By the routes</option>
                {choices.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            )}
          </Entry>
        );
      })}
    </Card>
  );
}

function Tools(part: Part) {
  const rules = useQuery({
    queryKey: ["assistant rules"],
    queryFn: ({ signal }) => get<Rules>("/assistant_rules", signal),
    staleTime: 60_000,
  });
  const { definition, locked } = part;
  const tools = [...new Set([...(rules.data?.tools ?? []), ...definition.tools])];
  const servers = [...new Set([...(rules.data?.mcp ?? []), ...definition.mcp.map((each) => each.url)])];
  const people = [...new Set([...(rules.data?.people ?? []), ...(definition.person ? [definition.person] : [])])];
  return (
    <Card title="Tools">
      {rules.isError && <p role="alert">{rules.error.message}</p>}
      {tools.length > 0 ? (
        <Ticks
          label="Tools"
          hint="What it may do beside talking."
          problem={part.problem("tools")}
          choices={tools}
          ticked={definition.tools}
          locked={locked}
          change={(ticked) => part.set({ tools: ticked })}
        />
      ) : (
        !rules.isPending && <p className="hint">This profile allows none.</p>
      )}
      {servers.length > 0 && (
        <Ticks
          label="MCP servers"
          hint="It has their tools, too."
          problem={part.problem("mcp")}
          choices={servers}
          ticked={definition.mcp.map((each) => each.url)}
          locked={locked}
          change={(ticked) => part.set({ mcp: ticked.map((url) => definition.mcp.find((each) => each.url === url) ?? { url }) })}
        />
      )}
      {people.length > 0 && (
        <Entry label="Person to transfer to" hint="For the tool transfer_to_person." problem={part.problem("person")}>
          {(tie) => (
            <select {...tie} disabled={locked} value={definition.person ?? ""} onChange={(event) => part.set({ person: event.target.value || null })}>
              <option value="">Nobody</option>
              {people.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          )}
        </Entry>
      )}
    </Card>
  );
}

function Amount({ definition, locked, set, tie, group, field }: Part & { tie: Tie; group: "limits" | "tool_limits" | null; field: string }) {
  const held = (group ? definition[group] : definition) as Record<string, number | string>;
  return (
    <input
      {...tie}
      inputMode="decimal"
      readOnly={locked}
      placeholder="default"
      value={held[field] ?? ""}
      onChange={(event) => set(group ? { [group]: { ...held, [field]: event.target.value } } : { [field]: event.target.value })}
    />
  );
}

function Texts({ definition, locked, problem, set }: Part) {
  const own = TEXTS.filter(({ field }) => definition.texts[field]).length;
  return (
    <details className="card">
      <summary>
        <h2>Sentences spoken without a model</h2> <small>{own > 0 ? `${own} of ${TEXTS.length} are your own` : "all as they come"}</small>
      </summary>
      <div className="entries">
        {TEXTS.map(({ field, label }) => (
          <Entry key={field} label={label} problem={problem(`texts.${field}`)} wide>
            {(tie) => (
              <input
                {...tie}
                readOnly={locked}
                placeholder="as it comes, in the assistant's language"
                value={definition.texts[field] ?? ""}
                onChange={(event) => set({ texts: { ...definition.texts, [field]: event.target.value || null } })}
              />
            )}
          </Entry>
        ))}
      </div>
    </details>
  );
}
