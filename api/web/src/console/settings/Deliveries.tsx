import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import { ask } from "../api";
import { Listed, useList } from "../list";
import { useMay } from "../me";
import { Badge, When } from "../parts";
import type { Message } from "./webhookShapes";

const STATUSES = { "": "All", pending: "On their way", delivered: "Delivered", dead: "Given up" } as const;
const LOOK_MS = 1_000;

/** What became of each message; those that were given up can be sent again. */
export function Deliveries({ id }: { id: string }) {
  const may = useMay();
  const client = useQueryClient();
  const [address, setAddress] = useSearchParams();
  const status = address.get("status") ?? "";
  const list = useList<Message>(["webhook messages", id], "/webhook_messages", { webhook_id: id, status }, {
    every: (items) => (items.some((each) => each.status === "pending") ? LOOK_MS : false),
  });
  const again = () => void client.invalidateQueries({ queryKey: ["webhook messages", id] });
  const replay = useMutation({ mutationFn: () => ask<{ messages: number }>("POST", `/webhooks/${id}/replay`), onSuccess: again });
  const dead = list.items.some((each) => each.status === "dead");
  return (
    <section aria-labelledby="deliveries">
      <div className="part-head">
        <h2 id="deliveries">Messages</h2>
        <label className="field">
          <span>Show</span>
          <select value={status} onChange={(event) => setAddress(event.target.value ? { status: event.target.value } : {}, { replace: true })}>
            {Object.entries(STATUSES).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        {dead && may("webhooks:write") && (
          <button type="button" className="button-line" disabled={replay.isPending} onClick={() => replay.mutate()}>
            Send all given up again
          </button>
        )}
      </div>
      <p className="hint" role="status">
        {replay.error?.message ?? (replay.data && `${replay.data.body.messages} messages are sent again.`)}
      </p>
      <Listed list={list} what="messages" empty={<p className="hint">{status ? "None is like this." : "None yet: send a test, and see here what comes of it."}</p>}>
        <ul className="items">
          {list.items.map((message) => (
            <Row key={message.id} message={message} again={again} />
          ))}
        </ul>
      </Listed>
    </section>
  );
}

function Row({ message, again }: { message: Message; again: () => void }) {
  const may = useMay();
  const replay = useMutation({ mutationFn: () => ask("POST", `/webhook_messages/${message.id}/replay`), onSuccess: again });
  const { status, attempts, answer } = message;
  return (
    <li className="item">
      <div className="item-about">
        <h3>
          {message.event} <Badge kind={status === "dead" ? "warn" : status === "delivered" ? "live" : "quiet"}>{STATUSES[status]}</Badge>
        </h3>
        <p className="item-meta">
          <When at={message.created_at} />, {attempts === 1 ? "1 attempt" : `${attempts} attempts`}
          {answer !== null && `, answered ${answer}`}
          {message.delivered_at && (
            <>
              , delivered <When at={message.delivered_at} />
            </>
          )}
          {message.next_at && (
            <>
              , next <When at={message.next_at} />
            </>
          )}
        </p>
        {message.problem && status !== "delivered" && <p>{message.problem}</p>}
        {replay.error && <p role="alert">{replay.error.message}</p>}
      </div>
      {may("webhooks:write") && status !== "pending" && (
        <div className="item-actions">
          <button type="button" className="button-quiet" disabled={replay.isPending} onClick={() => replay.mutate()}>
            Send again<span className="visually-hidden">: {message.event}</span>
          </button>
        </div>
      )}
    </li>
  );
}
