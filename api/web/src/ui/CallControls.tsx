import { type ChangeEvent, type ReactNode, Suspense, lazy, useRef, useState } from "react";
import type { Call } from "../call/call";
import type { CallState } from "../call/model";
import { DeviceIcon, FileIcon, HangUpIcon, KeyboardIcon, MicIcon, MicOffIcon } from "./icons";

const DeviceMenu = lazy(() => import("./DeviceMenu"));

interface Props {
  call: Call;
  state: CallState;
  typing: boolean;
  onTyping: (typing: boolean) => void;
}

/** Within a thumb's reach: mute, keyboard, file, device, end. */
export function CallControls({ call, state, typing, onTyping }: Props) {
  const [choosing, setChoosing] = useState(false);
  return (
    <div className="controls" role="group" aria-label="Call controls">
      {choosing && state.line !== null && (
        <Suspense fallback={null}>
          <DeviceMenu call={call} room={state.line.room} mic={state.mic} onClose={() => setChoosing(false)} />
        </Suspense>
      )}
      <MuteControl call={call} mic={state.mic} />
      <Control label="Keyboard" keys="" pressed={typing} onClick={() => onTyping(!typing)} icon={<KeyboardIcon />} />
      <FileControl call={call} ready={state.phase === "live"} />
      <Control
        label="Devices"
        keys=""
        expanded={choosing}
        disabled={state.line === null}
        onClick={() => setChoosing(!choosing)}
        icon={<DeviceIcon />}
      />
      <Control label="End call" keys="Escape" strong onClick={() => call.end()} icon={<HangUpIcon />} />
    </div>
  );
}

function MuteControl({ call, mic }: { call: Call; mic: CallState["mic"] }) {
  if (mic === "off") {
    return <Control label="Use mic" keys="" onClick={() => void call.retryMicrophone()} icon={<MicOffIcon />} />;
  }
  const muted = mic === "muted";
  return (
    <Control
      label={muted ? "Unmute" : "Mute"}
      keys="Space"
      marked={muted}
      onClick={() => void call.toggleMute()}
      icon={muted ? <MicOffIcon /> : <MicIcon />}
    />
  );
}

/** The kinds are a hint to the file dialog; what a file is, its content decides. */
const KINDS = ".txt,.md,.csv,.tsv,.json,.pdf,.docx,.png,.jpg,.jpeg,.webp,.gif,text/*";

function FileControl({ call, ready }: { call: Call; ready: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  const chosen = (event: ChangeEvent<HTMLInputElement>) => {
    void call.sendFiles([...(event.target.files ?? [])]);
    // The same file may be sent again.
    event.target.value = "";
  };
  return (
    <>
      <Control label="File" keys="" disabled={!ready} onClick={() => input.current?.click()} icon={<FileIcon />} />
      <input ref={input} type="file" accept={KINDS} multiple hidden onChange={chosen} aria-label="File to send" />
    </>
  );
}

interface ControlProps {
  label: string;
  keys: string;
  icon: ReactNode;
  onClick: () => void;
  pressed?: boolean;
  expanded?: boolean;
  marked?: boolean;
  strong?: boolean;
  disabled?: boolean;
}

function Control({ label, keys, icon, onClick, pressed, expanded, marked, strong, disabled }: ControlProps) {
  return (
    <button
      type="button"
      className="control"
      data-strong={strong}
      data-marked={marked}
      disabled={disabled}
      aria-pressed={pressed}
      aria-expanded={expanded}
      aria-keyshortcuts={keys === "" ? undefined : keys}
      title={keys === "" ? undefined : `${label} (${keys})`}
      onClick={onClick}
    >
      <span className="control-face">{icon}</span>
      <span className="control-label">{label}</span>
    </button>
  );
}
