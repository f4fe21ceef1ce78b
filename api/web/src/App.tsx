import "./styles/page.css";
import "./styles/conversation.css";
import "./styles/controls.css";
import { Suspense, lazy, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { Call } from "./call/call";
import { inCall } from "./call/model";
import { CallControls } from "./ui/CallControls";
import { Composer } from "./ui/Composer";
import { Conversation } from "./ui/Conversation";
import { FileDrop } from "./ui/FileDrop";
import { Header } from "./ui/Header";
import { Notice } from "./ui/Notice";
import { Stage } from "./ui/Stage";
import { StartControls } from "./ui/StartControls";
import { useCallKeys } from "./ui/useCallKeys";

const loadCallAudio = () => import("./ui/CallAudio");
const CallAudio = lazy(loadCallAudio);

export default function App() {
  const [call] = useState(() => new Call());
  const state = useSyncExternalStore(call.store.subscribe, call.store.get);
  const [typing, setTyping] = useState(false);
  const main = useRef<HTMLElement>(null);
  const calling = inCall(state.phase);

  useCallKeys(call, { typing, stopTyping: () => setTyping(false) });

  useEffect(() => {
    const timer = setTimeout(() => {
      call.warm();
      void loadCallAudio().catch(() => undefined);
    }, 300);
    return () => clearTimeout(timer);
  }, [call]);

  // The button that was pressed is gone: without this, the keyboard would be nowhere.
  useEffect(() => {
    if (calling) main.current?.focus({ preventScroll: true });
    else setTyping(false);
  }, [calling]);

  // No microphone: typing is the way to talk, so it is at hand.
  const voiceless = state.micTrouble !== null;
  useEffect(() => {
    if (calling && voiceless) setTyping(true);
  }, [calling, voiceless]);

  const start = (withMicrophone: boolean) => {
    setTyping(!withMicrophone);
    void call.start(withMicrophone);
  };

  const bare = state.transcript.length === 0;
  return (
    <div className="page" data-layout={calling || !bare ? "call" : "welcome"} data-typing={calling && typing}>
      <Header state={state} />
      <main className="main" ref={main} tabIndex={-1} aria-label="Conversation with Parley">
        <Stage call={call} state={state} />
        <Notice call={call} state={state} />
        {(calling || !bare) && <Conversation state={state} />}
      </main>
      <footer className="dock">
        {calling && typing && <Composer call={call} onClose={() => setTyping(false)} />}
        {calling ? (
          <CallControls call={call} state={state} typing={typing} onTyping={setTyping} />
        ) : (
          <StartControls again={!bare || state.phase === "ended"} failed={state.phase === "failed"} onStart={start} />
        )}
      </footer>
      <FileDrop call={call} state={state} />
      {state.line !== null && (
        <Suspense fallback={null}>
          <CallAudio room={state.line.room} />
        </Suspense>
      )}
    </div>
  );
}
