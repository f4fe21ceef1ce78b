import { type FormEvent, type ReactNode, useRef } from "react";
import { Entry, Ticks, Unplaced, useFirstProblem, wrong } from "../fields";
import { EVENTS } from "./webhookShapes";

export interface WebhookDraft {
  url: string;
  events: string[];
  description: string;
}

/** Where to, and of what. */
export function WebhookForm({
  label,
  draft,
  error,
  change,
  save,
  children,
}: {
  label: string;
  draft: WebhookDraft;
  error: Error | null;
  change: (draft: WebhookDraft) => void;
  save: () => void;
  children: ReactNode;
}) {
  const form = useRef<HTMLFormElement>(null);
  useFirstProblem(form, error);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    save();
  };
  return (
    <form ref={form} className="card" aria-label={label} noValidate onSubmit={submit}>
      <div className="entries">
        <Entry label="Address" hint="Where messages are sent, over https." problem={wrong(error, "url")} wide>
          {(tie) => (
            <input {...tie} type="url" maxLength={2000} placeholder="https://example.com/hooks/parley" value={draft.url} onChange={(event) => change({ ...draft, url: event.target.value })} />
          )}
        </Entry>
        <Entry label="Description" problem={wrong(error, "description")} wide>
          {(tie) => <input {...tie} maxLength={200} value={draft.description} onChange={(event) => change({ ...draft, description: event.target.value })} />}
        </Entry>
        <Ticks
          label="Events"
          hint="What it hears of."
          problem={wrong(error, "events")}
          choices={[...new Set([...EVENTS, ...draft.events])]}
          ticked={draft.events}
          change={(events) => change({ ...draft, events })}
        />
      </div>
      <Unplaced error={error} fields={["url", "events", "description"]} />
      {children}
    </form>
  );
}
