import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { type Answer, ask } from "../api";
import { Confirm } from "../Confirm";
import { Conflict, SaveLine, useDraft, useLeaving, useSave } from "../draft";
import { useMay } from "../me";
import { Badge, Loading, Trouble, When } from "../parts";
import { Deliveries } from "./Deliveries";
import { Secret } from "./Secret";
import { WebhookForm } from "./WebhookForm";
import type { Webhook, WebhookWithSecret } from "./webhookShapes";

/** One endpoint: what it hears of, and what became of each message. */
export function WebhookPage() {
  const { id = "" } = useParams();
  const path = `/webhooks/${encodeURIComponent(id)}`;
  const read = useQuery({ queryKey: ["webhook", id], queryFn: ({ signal }) => ask<Webhook>("GET", path, { signal }) });
  if (read.isPending) return <Loading what="the webhook" />;
  if (read.isError) return <Trouble error={read.error} again={() => void read.refetch()} />;
  return (
    <section aria-labelledby="part">
      <p className="crumb">
        <Link to="/settings/webhooks">Webhooks</Link> / <code>{id}</code>
      </p>
      <Acts answer={read.data} path={path} />
      <Change answer={read.data} path={path} />
      <Deliveries id={id} />
    </section>
  );
}

function Acts({ answer, path }: { answer: Answer<Webhook>; path: string }) {
  const may = useMay();
  const navigate = useNavigate();
  const client = useQueryClient();
  const confirm = useRef<HTMLDialogElement>(null);
  const [secret, setSecret] = useState<string | null>(null);
  const hook = answer.body;
  const took = (fresh: Answer<Webhook>) => {
    client.setQueryData(["webhook", hook.id], fresh);
    void client.invalidateQueries({ queryKey: ["webhooks"] });
  };
  const enable = useMutation({
    mutationFn: () => ask<Webhook>("PATCH", path, { body: { enabled: !hook.enabled }, ...(answer.etag === null ? {} : { ifMatch: answer.etag }) }),
    onSuccess: took,
    onError: () => void client.invalidateQueries({ queryKey: ["webhook", hook.id] }),
  });
  const test = useMutation({
    mutationFn: () => ask("POST", `${path}/test`),
    onSuccess: () => void client.invalidateQueries({ queryKey: ["webhook messages", hook.id] }),
  });
  const rotate = useMutation({
    mutationFn: () => ask<WebhookWithSecret>("POST", `${path}/rotate`),
    onSuccess: (fresh) => {
      const { secret: made, ...rest } = fresh.body;
      setSecret(made);
      took({ ...fresh, body: rest });
    },
  });
  const remove = useMutation({
    mutationFn: () => ask("DELETE", path),
    onSuccess: () => {
      client.removeQueries({ queryKey: ["webhook", hook.id] });
      void client.invalidateQueries({ queryKey: ["webhooks"] });
      void navigate("/settings/webhooks");
    },
  });
  const failed = enable.error ?? test.error ?? rotate.error ?? remove.error;
  return (
    <>
      <div className="part-head">
        <h2 id="part" className="address">
          {hook.url} {hook.enabled ? <Badge kind="live">Enabled</Badge> : <Badge kind="warn">Disabled</Badge>}
        </h2>
        {may("webhooks:write") && (
          <div className="page-actions">
            <button type="button" className="button-line" disabled={test.isPending || !hook.enabled} onClick={() => test.mutate()}>
              Send a test
            </button>
            <button type="button" className="button-quiet" disabled={enable.isPending} onClick={() => enable.mutate()}>
              {hook.enabled ? "Disable" : "Enable"}
            </button>
            <button type="button" className="button-quiet" disabled={rotate.isPending} onClick={() => rotate.mutate()}>
              New secret
            </button>
            <button type="button" className="button-quiet" onClick={() => confirm.current?.showModal()}>
              Delete
            </button>
          </div>
        )}
      </div>
      {failed && <p role="alert">{failed.message}</p>}
      {secret !== null && (
        <Secret title="Its new secret" value={secret} done={() => setSecret(null)}>
          For 24 hours the old one signs as well.
        </Secret>
      )}
      {hook.old_secret_until && (
        <p className="hint">
          The secret of before signs until <When at={hook.old_secret_until} />.
        </p>
      )}
      <Confirm ref={confirm} title="Delete this endpoint?" action="Delete" onConfirm={() => remove.mutate()}>
        Nothing is sent to it any more, and its messages are gone.
      </Confirm>
    </>
  );
}

const draftOf = ({ url, events, description }: Webhook) => ({ url, events, description });

function Change({ answer, path }: { answer: Answer<Webhook>; path: string }) {
  const may = useMay();
  const client = useQueryClient();
  const { base, draft, setDraft, changed, take } = useDraft(answer, draftOf);
  const saving = useSave<Webhook>({
    method: "PATCH",
    path,
    base,
    body: () => draft,
    take: (fresh) => {
      take(fresh);
      client.setQueryData(["webhook", fresh.body.id], fresh);
      void client.invalidateQueries({ queryKey: ["webhooks"] });
    },
  });
  useLeaving(changed);
  if (!may("webhooks:write")) return <p className="hint">Hears of: {base.body.events.join(", ")}</p>;
  return (
    <WebhookForm label="Endpoint" draft={draft} error={saving.error} change={setDraft} save={() => saving.save.mutate(false)}>
      <Conflict what="endpoint" saving={saving} />
      <SaveLine changed={changed} saving={saving} />
    </WebhookForm>
  );
}
