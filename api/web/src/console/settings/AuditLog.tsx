import { useSearchParams } from "react-router";
import { Listed, useList } from "../list";
import { Empty, When } from "../parts";
import { useNames } from "../useNames";

interface Act {
  id: string;
  created_at: string;
  actor: string;
  action: string;
  target: string;
  detail: Record<string, unknown>;
  address: string;
}

const ACTIONS = [
  "assistant.change",
  "assistant.create",
  "assistant.delete",
  "assistant.restore",
  "call.delete",
  "call.end",
  "file.create",
  "file.delete",
  "key.create",
  "key.revoke",
  "key.rotate",
  "person.change",
  "tenant.change",
  "webhook.change",
  "webhook.create",
  "webhook.delete",
  "webhook.replay",
  "webhook.rotate",
  "webhook.test",
  "webhook_message.replay",
];

/** Who did what to what, the newest first. */
export function AuditLog() {
  const [address, setAddress] = useSearchParams();
  const [action, actor, target] = ["action", "actor", "target"].map((name) => address.get(name) ?? "");
  const list = useList<Act>(["audit"], "/audit", { action, actor, target });
  const nameOf = useNames();
  const narrow = (name: string, value: string) =>
    setAddress(
      (before) => {
        if (value) before.set(name, value);
        else before.delete(name);
        return before;
      },
      { replace: true },
    );
  const narrowed = Boolean(action || actor || target);
  return (
    <section aria-labelledby="part">
      <div className="part-head">
        <h2 id="part">Audit log</h2>
        {actor && <Chip what={`By ${nameOf(actor)}`} drop={() => narrow("actor", "")} />}
        {target && <Chip what={`On ${target}`} drop={() => narrow("target", "")} />}
        <label className="field">
          <span>Act</span>
          <select value={action} onChange={(event) => narrow("action", event.target.value)}>
            <option value="">All</option>
            {ACTIONS.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      </div>
      <Listed
        list={list}
        what="the audit log"
        empty={
          <Empty title={narrowed ? "No act is like this" : "Nothing was changed yet"}>
            {narrowed ? "Widen what is shown." : "Each change of an assistant, a key, a webhook or a person is written here."}
          </Empty>
        }
      >
        <ol className="items">
          {list.items.map((act) => (
            <li key={act.id} className="item">
              <div className="item-about">
                <h3>{act.action}</h3>
                <p className="item-meta">
                  <When at={act.created_at} />, by{" "}
                  <button type="button" className="button-inline" onClick={() => narrow("actor", act.actor)}>
                    {nameOf(act.actor)}
                  </button>
                  {act.target && (
                    <>
                      , on{" "}
                      <button type="button" className="button-inline" onClick={() => narrow("target", act.target)}>
                        {nameOf(act.target)}
                      </button>
                    </>
                  )}
                  {act.address && `, from ${act.address}`}
                </p>
                {Object.keys(act.detail).length > 0 && <p className="act-detail">{told(act.detail)}</p>}
              </div>
            </li>
          ))}
        </ol>
      </Listed>
    </section>
  );
}

function Chip({ what, drop }: { what: string; drop: () => void }) {
  return (
    <button type="button" className="button-line" onClick={drop}>
      {what} <span aria-hidden="true">×</span>
      <span className="visually-hidden">: show all</span>
    </button>
  );
}

function said(value: unknown): string {
  if (Array.isArray(value)) return value.map(said).join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

function told(detail: Record<string, unknown>): string {
  return Object.entries(detail)
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${said(value)}`)
    .join("; ");
}
