import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { ask } from "../api";
import { Listed, useList } from "../list";
import { useMay } from "../me";
import { Badge, Empty } from "../parts";
import { Secret } from "./Secret";
import { WebhookForm } from "./WebhookForm";
import type { Webhook, WebhookWithSecret } from "./webhookShapes";

/** Where others want to hear of calls. */
export function Webhooks() {
  const may = useMay();
  const list = useList<Webhook>(["webhooks"], "/webhooks");
  const [making, setMaking] = useState(false);
  const [fresh, setFresh] = useState<WebhookWithSecret | null>(null);
  return (
    <section aria-labelledby="part">
      <div className="part-head">
        <h2 id="part">Webhooks</h2>
        {may("webhooks:write") && !making && (
          <button type="button" className="button button-small" onClick={() => setMaking(true)}>
            New endpoint
          </button>
        )}
      </div>
      {fresh && (
        <Secret title="Its secret" value={fresh.secret} done={() => setFresh(null)}>
          The receiver of <code>{fresh.url}</code> verifies messages with it, by the Standard Webhooks libraries.
        </Secret>
      )}
      {making && (
        <Making
          made={(hook) => {
            setMaking(false);
            setFresh(hook);
          }}
          cancel={() => setMaking(false)}
        />
      )}
      <Listed
        list={list}
        what="webhooks"
        empty={
          !making && (
            <Empty title="Nobody is told of calls yet">
              {may("webhooks:write") ? "Add an endpoint of yours: it is told when a call begins and ends, signed and retried." : "An operator adds endpoints."}
            </Empty>
          )
        }
      >
        <ul className="items">
          {list.items.map((hook) => (
            <li key={hook.id} className="item">
              <div className="item-about">
                <h3>
                  <Link to={`/settings/webhooks/${hook.id}`}>{hook.url}</Link> {!hook.enabled && <Badge kind="warn">Disabled</Badge>}
                </h3>
                {hook.description && <p>{hook.description}</p>}
                <p className="item-meta">{hook.events.join(", ")}</p>
              </div>
            </li>
          ))}
        </ul>
      </Listed>
    </section>
  );
}

function Making({ made, cancel }: { made: (hook: WebhookWithSecret) => void; cancel: () => void }) {
  const client = useQueryClient();
  const [draft, setDraft] = useState({ url: "", events: ["call.ended"], description: "" });
  const make = useMutation({
    mutationFn: () => ask<WebhookWithSecret>("POST", "/webhooks", { body: draft }),
    onSuccess: ({ body }) => {
      void client.invalidateQueries({ queryKey: ["webhooks"] });
      made(body);
    },
  });
  return (
    <WebhookForm label="New endpoint" draft={draft} error={make.error} change={setDraft} save={() => make.mutate()}>
      <div className="page-actions">
        <button type="submit" className="button button-small" disabled={make.isPending}>
          {make.isPending ? "Creating…" : "Create endpoint"}
        </button>
        <button type="button" className="button-quiet" onClick={cancel}>
          Cancel
        </button>
      </div>
    </WebhookForm>
  );
}
