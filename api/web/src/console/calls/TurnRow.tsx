import { parseTurn } from "../../call/turn";
import { Waterfall } from "../../ui/TurnDetails";
import { Badge, When, money } from "../parts";
import type { TurnShown } from "./shapes";

/** A question and its answer, beside where the time went. */
export function TurnRow({ turn, currency }: { turn: TurnShown; currency: string }) {
  const report = parseTurn(JSON.stringify({ ...turn, turn: turn.number, voice_to_voice_ms: turn.voice_ms }));
  return (
    <li className="turn-row">
      <div className="turn-words">
        <p className="turn-meta">
          <span>{turn.number}</span>
          <When at={turn.at} />
          {turn.typed && <Badge kind="quiet">Typed</Badge>}
          {turn.interrupted && <Badge kind="quiet">Interrupted</Badge>}
          {turn.retries > 0 && <Badge kind="warn">{turn.retries === 1 ? "1 retry" : `${turn.retries} retries`}</Badge>}
          {turn.fallback !== null && <Badge kind="warn">Fallback</Badge>}
        </p>
        {turn.heard && <p className="said-caller">{turn.heard}</p>}
        {turn.answer && (
          <p className="said-assistant">
            {turn.answer}
            {turn.interrupted && <span aria-hidden="true"> —</span>}
          </p>
        )}
        {turn.error !== null && (
          <p className="said-error">
            <Badge kind="warn">No answer</Badge> {turn.error}
          </p>
        )}
      </div>
      <div className="turn-times">
        {report !== null && report.stages.length > 0 && <Waterfall stages={report.stages} total={turn.voice_ms} whose="the caller’s" />}
        {report !== null && report.models.length > 0 && (
          <p className="turn-models">
            {report.models.map(({ role, name }) => `${role}: ${name}`).join(", ")}
            {report.fallback !== null && `; fell back to ${report.fallback}`}
          </p>
        )}
        {turn.cost !== null && <p className="turn-cost">{money(turn.cost, currency)}</p>}
      </div>
    </li>
  );
}
