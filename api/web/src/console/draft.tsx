/** Changing what others may change meanwhile: nothing is overwritten that one has not seen, unless one says so. */

import { useMutation } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { type Answer, Problem, ask } from "./api";

/** What is typed over an answer. While nothing is typed, a newer answer takes its place. */
export function useDraft<Body, Draft>(answer: Answer<Body>, draftOf: (body: Body) => Draft) {
  const [base, setBase] = useState(answer);
  const [draft, setDraft] = useState(() => draftOf(answer.body));
  const changed = JSON.stringify(draft) !== JSON.stringify(draftOf(base.body));
  const take = (fresh: Answer<Body>) => {
    setBase(fresh);
    setDraft(draftOf(fresh.body));
  };
  useEffect(() => {
    if (!changed && answer.etag !== base.etag) take(answer);
  });
  return { base, draft, setDraft, changed, take };
}

export interface Saving<Body> {
  method: "PUT" | "PATCH";
  path: string;
  base: Answer<Body>;
  /** What is sent. */
  body: () => unknown;
  /** What was saved, or was read anew. */
  take: (fresh: Answer<Body>) => void;
}

/** Save with If-Match; `conflict` says that somebody else was first. */
export function useSave<Body>({ method, path, base, body, take }: Saving<Body>) {
  const save = useMutation({
    mutationFn: async (anyway: boolean) => {
      const read = anyway ? (await ask<Body>("GET", path)).etag : base.etag;
      return ask<Body>(method, path, { body: body(), ...(read === null ? {} : { ifMatch: read }) });
    },
    onSuccess: take,
  });
  const reload = useMutation({
    mutationFn: () => ask<Body>("GET", path),
    onSuccess: (fresh) => {
      take(fresh);
      save.reset();
    },
  });
  const conflict = save.error instanceof Problem && save.error.status === 412;
  return { save, reload, conflict, error: conflict ? reload.error : (save.error ?? reload.error) };
}

/** Somebody else was first: the way out is the reader's choice. */
export function Conflict<Body>({ what, saving }: { what: string; saving: ReturnType<typeof useSave<Body>> }) {
  if (!saving.conflict) return null;
  const busy = saving.save.isPending || saving.reload.isPending;
  return (
    <section className="form-trouble" role="alert">
      <h2>It was changed meanwhile</h2>
      <p>Somebody saved this {what} after you opened it. Nothing of yours is saved yet.</p>
      <div className="page-actions">
        <button type="button" className="button button-small" disabled={busy} onClick={() => saving.reload.mutate()}>
          Reload, and drop my changes
        </button>
        <button type="button" className="button-quiet" disabled={busy} onClick={() => saving.save.mutate(true)}>
          Overwrite with mine
        </button>
      </div>
    </section>
  );
}

/** The button that sends a form, and how far that is. */
export function SaveLine<Body>({ changed, saving }: { changed: boolean; saving: ReturnType<typeof useSave<Body>> }) {
  return (
    <div className="page-actions">
      <button type="submit" className="button button-small" disabled={!changed || saving.save.isPending}>
        {saving.save.isPending ? "Saving…" : "Save"}
      </button>
      <p className="hint" role="status">
        {changed ? "Not saved yet" : saving.save.isSuccess && "Saved"}
      </p>
    </div>
  );
}

let unsaved = 0;

/** Whether something is typed that would be lost. */
export function hasUnsaved(): boolean {
  return unsaved > 0;
}

/** Asks before typed words are lost: by a link, or by closing the page. */
export function useLeaving(changed: boolean): void {
  useEffect(() => {
    if (!changed) return;
    unsaved += 1;
    const closing = (event: BeforeUnloadEvent) => event.preventDefault();
    const clicked = (event: MouseEvent) => {
      const link = event.target instanceof Element ? event.target.closest("a") : null;
      if (link === null || link.target === "_blank" || link.hasAttribute("download") || link.getAttribute("href")?.startsWith("#")) return;
      if (event.ctrlKey || event.metaKey || event.shiftKey || window.confirm("Leave without saving your changes?")) return;
      event.preventDefault();
      event.stopPropagation();
    };
    window.addEventListener("beforeunload", closing);
    document.addEventListener("click", clicked, true);
    return () => {
      unsaved -= 1;
      window.removeEventListener("beforeunload", closing);
      document.removeEventListener("click", clicked, true);
    };
  }, [changed]);
}
