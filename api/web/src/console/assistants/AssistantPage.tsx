import "../../styles/console-rooms.css";
import "../../styles/console-forms.css";
import "../../styles/console-lists.css";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useRef } from "react";
import { Link, useNavigate, useParams, useSearchParams } from "react-router";
import { type Answer, ask, get } from "../api";
import { Confirm } from "../Confirm";
import { Conflict, useDraft, useLeaving, useSave } from "../draft";
import { useMay } from "../me";
import { Badge, Loading, Trouble, When } from "../parts";
import { Try } from "./Assistants";
import { Editor } from "./Editor";
import { Knowledge } from "./Knowledge";
import { type Definition, type Detail, type Draft, type Version, differences, sent } from "./shapes";
import { Versions, useRestore } from "./Versions";

export default function AssistantPage() {
  const { id = "" } = useParams();
  const [address] = useSearchParams();
  const path = `/assistants/${encodeURIComponent(id)}`;
  const read = useQuery({ queryKey: ["assistant", id], queryFn: ({ signal }) => ask<Detail>("GET", path, { signal }) });
  if (read.isPending) return <Loading what="the assistant" />;
  if (read.isError) return <Trouble error={read.error} again={() => void read.refetch()} />;
  const number = Number(address.get("version"));
  const old = number > 0 && number !== read.data.body.version;
  return (
    <article>
      <Head detail={read.data.body} path={path} />
      <div className="assistant-columns">
        {old ? <Old key={number} current={read.data} path={path} number={number} /> : <Current key={id} answer={read.data} path={path} />}
        {read.data.body.source === "database" && (
          <aside className="call-side">
            <Knowledge id={id} />
            <Versions path={path} current={read.data.body.version} shown={old ? number : read.data.body.version} />
          </aside>
        )}
      </div>
    </article>
  );
}

function Head({ detail, path }: { detail: Detail; path: string }) {
  const may = useMay();
  const navigate = useNavigate();
  const client = useQueryClient();
  const confirm = useRef<HTMLDialogElement>(null);
  const remove = useMutation({
    mutationFn: () => ask("DELETE", path),
    onSuccess: () => {
      client.removeQueries({ queryKey: ["assistant", detail.id] });
      void client.invalidateQueries({ queryKey: ["assistants"] });
      void navigate("/assistants");
    },
  });
  return (
    <header>
      <p className="crumb">
        <Link to="/assistants">Assistants</Link> / <code>{detail.id}</code>
      </p>
      <div className="page-head">
        <h1>
          {detail.name} {detail.source === "profile" && <Badge kind="quiet">Profile, read-only</Badge>}
        </h1>
        <div className="page-actions">
          <Try assistant={detail} />
          {may("assistants:write") && (
            <Link className="button-quiet" to={`/assistants/new?from=${encodeURIComponent(detail.id)}`}>
              Copy
            </Link>
          )}
          {may("assistants:write") && detail.source === "database" && (
            <button type="button" className="button-quiet" onClick={() => confirm.current?.showModal()}>
              Delete
            </button>
          )}
        </div>
      </div>
      {remove.error && <p role="alert">{remove.error.message}</p>}
      {detail.source === "profile" && <p className="hint">An operator changes it in the profile. A copy is yours to change.</p>}
      <Confirm ref={confirm} title={`Delete ${detail.name}?`} action={remove.isPending ? "Deleting…" : "Delete"} onConfirm={() => remove.mutate()}>
        No new call gets it. Calls in progress go on, and past ones still name it.
      </Confirm>
    </header>
  );
}

const draftOf = ({ name, definition }: Detail): Draft => ({ name, definition });

/** What new calls begin with. */
function Current({ answer, path }: { answer: Answer<Detail>; path: string }) {
  const may = useMay();
  const client = useQueryClient();
  const { base, draft, setDraft, changed, take } = useDraft(answer, draftOf);
  const saving = useSave<Detail>({
    method: "PUT",
    path,
    base,
    body: () => sent(draft),
    take: (fresh) => {
      take(fresh);
      client.setQueryData(["assistant", fresh.body.id], fresh);
      void client.invalidateQueries({ queryKey: ["assistants"] });
      void client.invalidateQueries({ queryKey: ["assistant", fresh.body.id, "versions"] });
    },
  });
  useLeaving(changed);
  const locked = base.body.source === "profile" || !may("assistants:write");
  const { save } = saving;
  return (
    <Editor draft={draft} locked={locked} error={saving.error} change={setDraft} save={() => save.mutate(false)}>
      <Conflict what="assistant" saving={saving} />
      {!locked && (
        <SaveBar changed={changed}>
          <button type="submit" className="button button-small" disabled={!changed || save.isPending}>
            {save.isPending ? "Saving…" : "Save"}
          </button>
          <p role="status">
            {changed ? "Not saved yet" : save.isSuccess ? `Saved: version ${base.body.version}. New calls begin with it.` : `Version ${base.body.version}`}
          </p>
          {changed && (
            <button type="button" className="button-quiet" onClick={() => setDraft(draftOf(base.body))}>
              Undo changes
            </button>
          )}
        </SaveBar>
      )}
    </Editor>
  );
}

/** In sight for as long as there is something to save. */
export function SaveBar({ changed, children }: { changed: boolean; children: ReactNode }) {
  return (
    <div className="save-bar" data-changed={changed}>
      {children}
    </div>
  );
}

/** What it was, to read and to bring back. */
function Old({ current, path, number }: { current: Answer<Detail>; path: string; number: number }) {
  const may = useMay();
  const { id, name, definition, version } = current.body;
  const read = useQuery({
    queryKey: ["assistant", id, "versions", number],
    queryFn: ({ signal }) => get<Version & { definition: Definition }>(`${path}/versions/${number}`, signal),
  });
  const restore = useRestore(path, current, number);
  if (read.isPending) return <Loading what="the version" />;
  if (read.isError) return <Trouble error={read.error} again={() => void read.refetch()} />;
  const apart = differences(definition, read.data.definition);
  return (
    <div>
      <section className="old-version" aria-label={`Version ${number}`}>
        <p>
          <strong>Version {number}</strong>, made <When at={read.data.created_at} />.{" "}
          {apart.length > 0 ? `Differs from version ${version} in: ${apart.join(", ")}.` : `The same as version ${version}.`}
        </p>
        <div className="page-actions">
          {may("assistants:write") && apart.length > 0 && (
            <button type="button" className="button button-small" disabled={restore.isPending} onClick={() => restore.mutate()}>
              {restore.isPending ? "Restoring…" : "Restore this version"}
            </button>
          )}
          <Try assistant={{ name: `${name}, version ${number},`, ref: `${id}@${number}` }} />
          <Link className="button-quiet" to={`/assistants/${id}`}>
            Back to version {version}
          </Link>
        </div>
        {restore.error && <p role="alert">{restore.error.message}</p>}
      </section>
      <Editor draft={{ name, definition: read.data.definition }} locked error={null} change={() => undefined} save={() => undefined} />
    </div>
  );
}
