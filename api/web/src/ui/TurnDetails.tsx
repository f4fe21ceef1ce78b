import "../styles/turn.css";
import { type CSSProperties, useState } from "react";
import { type Stage, type TurnReport, seconds } from "../call/turn";

/** How long the answer took; opened, where the time went and which models served it. */
export function TurnDetails({ report, id }: { report: TurnReport; id: string }) {
  const [open, setOpen] = useState(false);
  const panel = `turn-${id}`;
  const { voiceToVoiceMs } = report;
  return (
    <div className="turn">
      <button type="button" className="turn-time" aria-expanded={open} aria-controls={panel} onClick={() => setOpen(!open)}>
        <span className="visually-hidden">Answered in </span>
        {voiceToVoiceMs === null ? "time unknown" : seconds(voiceToVoiceMs)}
        <span className="visually-hidden">, details of this turn</span>
        <svg viewBox="0 0 12 12" aria-hidden="true">
          <path d="M3 4.5 6 7.5 9 4.5" />
        </svg>
      </button>
      <div id={panel} role="group" aria-label="Details of this turn" className="turn-panel" hidden={!open}>
        {report.stages.length > 0 && <Waterfall stages={report.stages} total={voiceToVoiceMs} />}
        <dl className="turn-facts">
          {report.models.map(({ role, name }) => (
            <div key={role}>
              <dt>{role}</dt>
              <dd>{name}</dd>
            </div>
          ))}
          <div>
            <dt>Retries</dt>
            <dd>{report.retries === 0 ? "none" : report.retries}</dd>
          </div>
          {report.fallback !== null && (
            <div>
              <dt>Fell back to</dt>
              <dd>{report.fallback}</dd>
            </div>
          )}
        </dl>
      </div>
    </div>
  );
}

/** Bars of the stages, from the caller's last word on. */
export function Waterfall({ stages, total, whose = "your" }: { stages: readonly Stage[]; total: number | null; whose?: string }) {
  const span = Math.max(total ?? 0, 1, ...stages.map((stage) => stage.from + stage.ms));
  return (
    <ol className="waterfall" aria-label="Stages of the answer">
      {stages.map((stage) => (
        <li key={stage.label}>
          <span className="stage-label">{stage.label}</span>
          <span className="stage-track" aria-hidden="true">
            <span
              className="stage-bar"
              style={{ "--from": stage.from / span, "--part": stage.ms / span } as CSSProperties}
            />
          </span>
          <span className="stage-time">{Math.round(stage.ms)} ms</span>
        </li>
      ))}
      {total !== null && (
        <li className="stage-total">
          <span className="stage-label">From {whose} last word to the first sound</span>
          <span className="stage-time">{Math.round(total)} ms</span>
        </li>
      )}
    </ol>
  );
}
