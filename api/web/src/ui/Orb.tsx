import { useEffect, useRef } from "react";
import type { Call } from "../call/call";
import { type Ink, Shape } from "./shape";

/** Quiet states are drawn half as often: the same machine may be thinking about the answer. */
const QUIET_FRAME_MS = 30;

/** The shape that lives. Decoration for the eye: the state is also the word below it. */
export function Orb({ call }: { call: Call }) {
  const canvas = useRef<HTMLCanvasElement>(null);

  useEffect(() => {
    const element = canvas.current;
    const pen = element?.getContext("2d");
    if (element === null || pen === null || pen === undefined) return;

    const shape = new Shape();
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    let ink = inkOf(element);
    let frame = 0;
    let drawnAt = 0;

    const draw = (now: number) => {
      const moment = { state: call.store.get(), caller: call.meters.caller?.read() ?? 0, agent: call.meters.agent?.read() ?? 0 };
      const side = element.width;
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, side, side);
      if (still.matches) shape.still(moment.state);
      else shape.advance(moment, Math.min(100, now - drawnAt));
      shape.draw(pen, side, ink);
      drawnAt = now;
    };
    const loop = (now: number) => {
      frame = requestAnimationFrame(loop);
      if (now - drawnAt >= (shape.loud ? 12 : QUIET_FRAME_MS)) draw(now);
    };
    const restart = () => {
      cancelAnimationFrame(frame);
      ink = inkOf(element);
      if (still.matches) draw(performance.now());
      else frame = requestAnimationFrame(loop);
    };

    const sizes = new ResizeObserver(() => {
      const density = Math.min(2, devicePixelRatio);
      const side = Math.round(element.clientWidth * density);
      if (side === element.width || side === 0) return;
      element.width = element.height = side;
      draw(performance.now());
    });
    sizes.observe(element);
    const unsubscribe = call.store.subscribe(() => still.matches && draw(performance.now()));
    still.addEventListener("change", restart);
    dark.addEventListener("change", restart);
    restart();
    return () => {
      cancelAnimationFrame(frame);
      sizes.disconnect();
      unsubscribe();
      still.removeEventListener("change", restart);
      dark.removeEventListener("change", restart);
    };
  }, [call]);

  return <canvas className="orb" ref={canvas} aria-hidden="true" />;
}

function inkOf(element: Element): Ink {
  const style = getComputedStyle(element);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return { accent: read("--accent-rgb"), core: read("--orb-core-rgb"), glow: Number(read("--orb-glow")) };
}
