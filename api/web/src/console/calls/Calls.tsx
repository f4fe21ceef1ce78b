import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { seconds } from "../../call/turn";
import { type PageOf, get, query } from "../api";
import { Badge, Empty, Loading, PageHead, Trouble, When, length, money } from "../parts";
import { Filters, NAMES, type Wanted } from "./Filters";
import { LiveCalls } from "./LiveCalls";
import { type CallItem, MEDIA, lasted, reasonOf } from "./shapes";

const PAGE = 100;
const ROW = 53;
const CARD = 92;

export default function Calls() {
  const [address, setAddress] = useSearchParams();
  const wanted = Object.fromEntries(NAMES.map((name) => [name, address.get(name) ?? ""])) as unknown as Wanted;
  const change = (name: keyof Wanted, value: string) =>
    setAddress(
      (before) => {
        if (value) before.set(name, value);
        else before.delete(name);
        return before;
      },
      { replace: true },
    );
  const assistants = useQuery({
    queryKey: ["assistants", "names"],
    queryFn: ({ signal }) => get<PageOf<{ name: string }>>("/assistants?limit=200", signal),
    staleTime: 60_000,
  });
  return (
    <>
      <PageHead title="Calls" />
      <LiveCalls />
      <Filters wanted={wanted} assistants={assistants.data?.items.map((each) => each.name) ?? []} change={change} clear={() => setAddress({}, { replace: true })} />
      <Past wanted={wanted} />
    </>
  );
}

function Past({ wanted }: { wanted: Wanted }) {
  const list = useInfiniteQuery({
    queryKey: ["calls", wanted],
    queryFn: ({ pageParam, signal }) =>
      get<PageOf<CallItem>>(`/calls${query({ ...wanted, ...days(wanted), limit: PAGE, after: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: false,
  });
  // What came meanwhile is offered, not pushed in: nothing jumps under one's eyes.
  if (list.isPending) return <Loading what="calls" />;
  if (list.isError && list.data === undefined) return <Trouble error={list.error} again={() => void list.refetch()} />;
  const calls = list.data.pages.flatMap((page) => page.items);
  if (calls.length === 0) return <Nothing narrowed={NAMES.some((name) => wanted[name] !== "")} />;
  return (
    <List
      calls={calls}
      stale={list.isPlaceholderData}
      more={list.hasNextPage}
      failed={list.isFetchNextPageError}
      next={() => {
        if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
      }}
    />
  );
}

function Nothing({ narrowed }: { narrowed: boolean }) {
  if (narrowed) return <Empty title="No call is like this">Widen the filters above.</Empty>;
  return (
    <Empty title="No calls yet">
      <a href="/">Talk to Parley</a>, or start one from your product: <code>POST /api/v1/calls</code>.
    </Empty>
  );
}

function List({
  calls,
  stale,
  more,
  failed,
  next,
}: {
  calls: readonly CallItem[];
  stale: boolean;
  more: boolean;
  failed: boolean;
  next: () => void;
}) {
  const narrow = useNarrow();
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  useLayoutEffect(() => setTop(box.current?.offsetTop ?? 0), [narrow]);
  const rows = useWindowVirtualizer({
    count: calls.length,
    estimateSize: () => (narrow ? CARD : ROW),
    overscan: 12,
    scrollMargin: top,
    getItemKey: (index) => calls[index]?.id ?? index,
  });
  useEffect(() => rows.measure(), [narrow, rows]);
  const shown = rows.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (more && !failed && last >= calls.length - 20) next();
  }, [more, failed, last, calls.length, next]);
  return (
    <section className="calls" aria-label="Past calls" aria-busy={stale} data-narrow={narrow}>
      {!narrow && (
        <div className="calls-head" aria-hidden="true">
          <span>Begun</span>
          <span>Caller</span>
          <span>Assistant</span>
          <span className="figure">Length</span>
          <span className="figure">Turns</span>
          <span className="figure">Answer, median</span>
          <span className="figure">Cost</span>
          <span>End</span>
        </div>
      )}
      <div ref={box} role="list" className="calls-body" style={{ height: rows.getTotalSize() }}>
        {shown.map((row) => {
          const call = calls[row.index];
          return call === undefined ? null : (
            <div
              key={row.key}
              role="listitem"
              aria-posinset={row.index + 1}
              aria-setsize={more ? -1 : calls.length}
              className="calls-row"
              style={{ height: row.size, transform: `translateY(${row.start - rows.options.scrollMargin}px)` }}
            >
              <Row call={call} index={row.index} />
            </div>
          );
        })}
      </div>
      {failed ? (
        <p className="hint">
          Older calls could not be read.{" "}
          <button type="button" className="button-quiet" onClick={next}>
            Try again
          </button>
        </p>
      ) : (
        <p className="hint">{more ? "Reading older calls…" : `All ${calls.length.toLocaleString()} calls are shown.`}</p>
      )}
    </section>
  );
}

function Row({ call, index }: { call: CallItem; index: number }) {
  const took = lasted(call);
  return (
    <Link
      to={`/calls/${encodeURIComponent(call.id)}`}
      className="calls-link"
      data-index={index}
      onKeyDown={(event) => {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (step === undefined) return;
        const neighbour = document.querySelector<HTMLElement>(`.calls-link[data-index="${index + step}"]`);
        if (neighbour) {
          event.preventDefault();
          neighbour.focus();
        }
      }}
    >
      <span className="cell-when">
        <When at={call.created_at} />
      </span>
      <span className="cell-caller">
        {call.caller || "Caller"} <small>{MEDIA[call.medium] ?? call.medium}</small>
      </span>
      <span className="cell-assistant">{call.assistant}</span>
      <span className="figure cell-length">{took === null ? "not answered" : length(took)}</span>
      <span className="figure cell-turns">
        <span className="visually-hidden">Turns: </span>
        {call.turns}
        {call.errors > 0 && <Badge kind="warn">{call.errors === 1 ? "1 error" : `${call.errors} errors`}</Badge>}
      </span>
      <span className="figure cell-median">
        <span className="visually-hidden">Answered in </span>
        {call.median_ms === null ? "–" : seconds(call.median_ms)}
      </span>
      <span className="figure cell-cost">{Number(call.cost) === 0 ? "–" : money(call.cost, call.currency)}</span>
      <span className="cell-end">
        {call.status === "ended" ? reasonOf(call.reason) : <Badge kind="live">{call.status === "live" ? "Live" : "Waiting"}</Badge>}
      </span>
    </Link>
  );
}

/** Days of the filter as moments: both days are whole, in one's own time zone. */
function days(wanted: Wanted): { from: string; to: string } {
  const from = wanted.from ? new Date(`${wanted.from}T00:00`) : null;
  const to = wanted.to ? new Date(`${wanted.to}T00:00`) : null;
  to?.setDate(to.getDate() + 1);
  return { from: moment(from), to: moment(to) };
}

function moment(date: Date | null): string {
  return date === null || Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

function useNarrow(): boolean {
  const [media] = useState(() => window.matchMedia("(max-width: 56rem)"));
  const [narrow, setNarrow] = useState(media.matches);
  useEffect(() => {
    const changed = () => setNarrow(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [media]);
  return narrow;
}
