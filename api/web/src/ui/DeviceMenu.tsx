import { useMediaDeviceSelect } from "@livekit/components-react";
import type { Room } from "livekit-client";
import { useEffect, useRef, useState } from "react";
import type { Call } from "../call/call";
import { remember } from "../call/microphone";
import type { MicState } from "../call/model";

interface Props {
  call: Call;
  room: Room;
  mic: MicState;
  onClose: () => void;
}

const CAN_CHOOSE_SPEAKER = "setSinkId" in HTMLMediaElement.prototype;

export default function DeviceMenu({ call, room, mic, onClose }: Props) {
  const menu = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const opener = document.activeElement;
    menu.current?.querySelector<HTMLElement>("input:checked, input, button")?.focus();
    const outside = (event: PointerEvent) => {
      if (event.target instanceof Element && event.target.closest(".devices, [aria-expanded=true]") === null) onClose();
    };
    const escape = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      onClose();
    };
    document.addEventListener("pointerdown", outside);
    document.addEventListener("keydown", escape, true);
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("keydown", escape, true);
      if (opener instanceof HTMLElement) opener.focus();
    };
    // The menu lives as long as it is open; `onClose` does not change what it does.
  }, []);

  return (
    <div className="devices" ref={menu} role="dialog" aria-label="Devices">
      {mic === "off" ? (
        <div className="device-group">
          <p className="device-title">Microphone</p>
          <button type="button" className="button button-small" onClick={() => void call.retryMicrophone()}>
            Use the microphone
          </button>
        </div>
      ) : (
        <Devices kind="audioinput" title="Microphone" room={room} onChosen={remember} />
      )}
      {CAN_CHOOSE_SPEAKER && <Devices kind="audiooutput" title="Speaker" room={room} />}
    </div>
  );
}

interface DevicesProps {
  kind: "audioinput" | "audiooutput";
  title: string;
  room: Room;
  onChosen?: (deviceId: string) => void;
}

function Devices({ kind, title, room, onChosen }: DevicesProps) {
  const { devices, activeDeviceId, setActiveMediaDevice } = useMediaDeviceSelect({ kind, room });
  // Shown at once; the device itself takes a moment to open, and may refuse.
  const [chosen, setChosen] = useState<string | null>(null);
  const choose = (deviceId: string) => {
    setChosen(deviceId);
    void setActiveMediaDevice(deviceId).then(
      () => onChosen?.(deviceId),
      () => setChosen(null),
    );
  };
  const wanted = chosen ?? activeDeviceId;
  const active = devices.some((device) => device.deviceId === wanted) ? wanted : devices[0]?.deviceId;
  return (
    <fieldset className="device-group">
      <legend className="device-title">{title}</legend>
      {devices.length === 0 && <p className="device-none">The system's own</p>}
      {devices.map((device, index) => (
        <label key={device.deviceId} className="device">
          <input
            type="radio"
            name={kind}
            checked={device.deviceId === active}
            onChange={() => choose(device.deviceId)}
          />
          <span>{device.label || `${title} ${index + 1}`}</span>
        </label>
      ))}
    </fieldset>
  );
}
