import type { Call } from "../call/call";
import { type CallState, type Step, type StepName, stateWord } from "../call/model";
import { seconds } from "../call/turn";
import { Orb } from "./Orb";

/** The shape in the middle, the state as a word, and before the call what will happen. */
export function Stage({ call, state }: { call: Call; state: CallState }) {
  const welcome = state.phase === "idle";
  return (
    <section className="stage" aria-label="State of the call">
      <Orb call={call} />
      {welcome && (
        <div className="welcome">
          <h1>Just say it.</h1>
          <p className="lede">Parley answers while the question is still in the air. Interrupt it whenever you like.</p>
        </div>
      )}
      <p className={welcome ? "visually-hidden" : "state"} role="status" aria-live="polite">
        {stateWord(state)}
      </p>
      {state.phase === "connecting" && <Steps steps={state.steps} />}
    </section>
  );
}

const STEP_WORDS: Record<StepName, string> = { microphone: "Microphone", line: "Line", assistant: "Assistant" };
const STATUS_WORDS: Record<Step["status"], string> = {
  pending: "to come",
  active: "under way",
  done: "ready",
  skipped: "not used",
  failed: "not available",
};

/** Anything shorter would read as 0.0 s. */
const NOTICEABLE_MS = 50;

function Steps({ steps }: { steps: readonly Step[] }) {
  return (
    <ol className="steps" aria-label="Steps of connecting">
      {steps.map((step) => (
        <li key={step.name} data-status={step.status}>
          <span className="step-mark" aria-hidden="true" />
          {STEP_WORDS[step.name]}
          <span className="visually-hidden">: {STATUS_WORDS[step.status]}</span>
          {step.ms !== null && step.ms >= NOTICEABLE_MS && <span className="step-time"> {seconds(step.ms)}</span>}
        </li>
      ))}
    </ol>
  );
}
