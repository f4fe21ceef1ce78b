import { useEffect, useRef, useState } from "react";

export type Connection = "opening" | "open" | "broken" | "over";

const PAUSES_MS = [500, 1000, 2000, 4000, 8000];

/**
 * Follow server-sent events until they say that they are over, or this is gone from the page.
 *
 * A stream that breaks is opened again where it was (Last-Event-ID), the pauses between tries growing to 8 s.
 */
export function useStream(path: string | null, types: readonly string[], take: (type: string, data: unknown) => void): Connection {
  const [connection, setConnection] = useState<Connection>("opening");
  const taker = useRef(take);
  taker.current = take;
  const wanted = types.join(" ");

  useEffect(() => {
    if (path === null) return;
    let source: EventSource | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failed = 0;
    setConnection("opening");

    const open = () => {
      source = new EventSource(`/api/v1${path}`);
      source.onopen = () => {
        failed = 0;
        setConnection("open");
      };
      source.onerror = () => {
        setConnection("broken");
        // The browser tries again by itself, from the last event on, unless it was refused.
        if (source?.readyState !== EventSource.CLOSED) return;
        timer = setTimeout(open, PAUSES_MS[Math.min(failed++, PAUSES_MS.length - 1)]);
      };
      for (const type of wanted.split(" ")) {
        source.addEventListener(type, (event) => {
          let data: unknown;
          try {
            data = JSON.parse((event as MessageEvent<string>).data);
          } catch {
            return;
          }
          taker.current(type, data);
          if (type === "ended") {
            source?.close();
            setConnection("over");
          }
        });
      }
    };
    open();
    return () => {
      clearTimeout(timer);
      source?.close();
    };
  }, [path, wanted]);

  return connection;
}
