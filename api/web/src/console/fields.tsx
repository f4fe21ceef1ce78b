/** Pieces of forms: a name above, a hint and what is wrong below, tied together for those who cannot see. */

import { type ReactNode, type RefObject, useEffect, useId } from "react";
import { Problem } from "./api";

/** What a control needs so that its name, hint and problem are read with it. */
export interface Tie {
  id: string;
  "aria-describedby": string | undefined;
  "aria-invalid": true | undefined;
}

interface Told {
  label: string;
  hint?: ReactNode;
  problem?: string | undefined;
}

export function Entry({ label, hint, problem, unit, wide, children }: Told & { unit?: string; wide?: boolean; children: (tie: Tie) => ReactNode }) {
  const id = useId();
  const told = [hint && `${id}-hint`, problem && `${id}-problem`].filter(Boolean).join(" ");
  return (
    <div className={wide ? "entry entry-wide" : "entry"}>
      <label htmlFor={id}>
        {label}
        {unit && <span className="entry-unit">, {unit}</span>}
      </label>
      {children({ id, "aria-describedby": told || undefined, "aria-invalid": problem ? true : undefined })}
      <Below id={id} hint={hint} problem={problem} />
    </div>
  );
}

/** Several boxes to tick, under one name. */
export function Ticks({
  label,
  hint,
  problem,
  choices,
  ticked,
  locked,
  change,
}: Told & { choices: readonly string[]; ticked: readonly string[]; locked?: boolean; change: (ticked: string[]) => void }) {
  const id = useId();
  return (
    <fieldset className="entry entry-wide ticks" aria-describedby={problem ? `${id}-problem` : hint ? `${id}-hint` : undefined}>
      <legend>{label}</legend>
      <div className="ticks-boxes">
        {choices.map((choice) => (
          <label key={choice} className="tick">
            <input
              type="checkbox"
              checked={ticked.includes(choice)}
              disabled={locked}
              aria-invalid={problem ? true : undefined}
              onChange={(event) => change(event.target.checked ? [...ticked, choice] : ticked.filter((each) => each !== choice))}
            />
            {choice}
          </label>
        ))}
      </div>
      <Below id={id} hint={hint} problem={problem} />
    </fieldset>
  );
}

function Below({ id, hint, problem }: { id: string; hint: ReactNode; problem: string | undefined }) {
  return (
    <>
      {hint && (
        <p id={`${id}-hint`} className="entry-hint">
          {hint}
        </p>
      )}
      {problem && (
        <p id={`${id}-problem`} className="entry-problem">
          {problem}
        </p>
      )}
    </>
  );
}

/** What the API says of one field, or of all that lie under it. */
export function wrong(error: unknown, field: string): string | undefined {
  if (!(error instanceof Problem)) return undefined;
  const told = error.errors.filter((each) => each.field === field || each.field.startsWith(`${field}.`));
  if (told.length > 0) return told.map((each) => each.problem).join("; ");
  // Some refusals name the field in their words alone.
  return error.errors.length === 0 && error.detail.startsWith(`${field}: `) ? error.detail.slice(field.length + 2) : undefined;
}

/** What went wrong, where no field of the form shows it. */
export function Unplaced({ error, fields }: { error: Error | null; fields: readonly string[] }) {
  if (error === null) return null;
  const placed = fields.some((field) => wrong(error, field) !== undefined);
  const rest =
    error instanceof Problem
      ? error.errors.filter(({ field }) => !fields.some((name) => field === name || field.startsWith(`${name}.`)))
      : [];
  return (
    <div className="form-trouble" role="alert">
      <p>{placed ? "It was not saved: see the fields that are marked." : error.message}</p>
      {placed && rest.length > 0 && <p>{rest.map((each) => `${each.field}: ${each.problem}`).join("; ")}</p>}
    </div>
  );
}

/** After a refusal, be where the first problem is. */
export function useFirstProblem(form: RefObject<HTMLFormElement | null>, error: unknown): void {
  useEffect(() => {
    if (!error) return;
    const first = form.current?.querySelector<HTMLElement>('[aria-invalid="true"]');
    first?.closest("details")?.setAttribute("open", "");
    first?.focus();
  }, [form, error]);
}
