import "../../styles/console-rooms.css";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { useSearchParams } from "react-router";
import { type PageOf, get, query } from "../api";
import { Badge, Empty, Fact, Loading, PageHead, Trouble, money } from "../parts";
import { Bars } from "./Bars";

interface Amounts {
  minutes: number;
  audio_seconds: number;
  characters: number;
  input_tokens: number;
  output_tokens: number;
  gpu_seconds: number;
}

interface Group {
  day: string | null;
  assistant: string | null;
  model: string | null;
  amounts: Amounts;
  cost: string;
  currency: string;
  unpriced: boolean;
}

interface Summary {
  first: string;
  last: string;
  calls: number;
  amounts: Amounts;
  totals: { cost: string; currency: string }[];
  unpriced_models: string[];
  prices: { model: string; unit: string; amount: string; per: number; currency: string; since: string }[];
}

const WINDOWS = [7, 30, 90] as const;
const DAY_MS = 86_400_000;

/** What was used in a window, and what it cost. */
export default function Usage() {
  const [address, setAddress] = useSearchParams();
  const days = WINDOWS.find((each) => String(each) === address.get("days")) ?? 30;
  const last = day(Date.now());
  const first = day(Date.now() - (days - 1) * DAY_MS);
  const window = { first, last };
  const summary = useQuery({
    queryKey: ["usage", "summary", first, last],
    queryFn: ({ signal }) => get<Summary>(`/usage/summary${query(window)}`, signal),
  });
  return (
    <>
      <PageHead title="Usage">
        <div className="choice" role="group" aria-label="Window">
          {WINDOWS.map((each) => (
            <button
              key={each}
              type="button"
              aria-pressed={each === days}
              onClick={() => setAddress({ days: String(each) }, { replace: true })}
            >
              {each} days
            </button>
          ))}
        </div>
      </PageHead>
      {summary.isPending && <Loading what="usage" />}
      {summary.isError && <Trouble error={summary.error} again={() => void summary.refetch()} />}
      {summary.data && <Whole summary={summary.data} />}
      {summary.data && summary.data.calls > 0 && (
        <>
          <ByDay first={first} last={last} />
          <By what="assistant" title="By assistant" window={window} />
          <By what="model" title="By model" window={window} />
          <Prices summary={summary.data} />
        </>
      )}
    </>
  );
}

function Whole({ summary }: { summary: Summary }) {
  if (summary.calls === 0) {
    return (
      <Empty title="No usage in this window">
        <a href="/">Talk to Parley</a>; what it takes is here a moment later.
      </Empty>
    );
  }
  const { amounts } = summary;
  const priced = summary.totals.filter((total) => total.currency !== "");
  return (
    <>
      <dl className="facts">
        <Fact name="Calls">{summary.calls.toLocaleString()}</Fact>
        <Fact name="Talk time">{count(amounts.minutes, "min")}</Fact>
        <Fact name="Heard and spoken">{count(amounts.audio_seconds, "s")}</Fact>
        <Fact name="Language model">
          {count(amounts.input_tokens, "tokens read")}, {count(amounts.output_tokens, "written")}
        </Fact>
        <Fact name="GPU">{count(amounts.gpu_seconds, "s")}</Fact>
        <Fact name="Cost">{priced.map((total) => money(total.cost, total.currency)).join(" + ") || "no prices"}</Fact>
      </dl>
      {summary.unpriced_models.length > 0 && (
        <p className="hint">
          <Badge kind="warn">Without a price</Badge> {summary.unpriced_models.join(", ")}: counted as 0. Prices are in the profile,
          under <code>api.prices</code>.
        </p>
      )}
    </>
  );
}

function ByDay({ first, last }: { first: string; last: string }) {
  const groups = useAll("day", { first, last });
  if (groups === null) return <Loading />;
  const by = new Map<string, { minutes: number; cost: number }>();
  for (const group of groups) {
    const before = by.get(group.day ?? "") ?? { minutes: 0, cost: 0 };
    by.set(group.day ?? "", { minutes: before.minutes + group.amounts.minutes, cost: before.cost + Number(group.cost) });
  }
  const currency = groups.find((group) => group.currency)?.currency ?? "";
  const days: string[] = [];
  for (let at = Date.parse(first); at <= Date.parse(last); at += DAY_MS) days.push(day(at));
  return (
    <section className="by-day" aria-label="By day">
      <Bars
        title="Talk time by day (UTC)"
        unit="minutes"
        bars={days.map((name) => ({ name, value: by.get(name)?.minutes ?? 0 }))}
        write={(value) => count(value, "min")}
      />
      {currency && (
        <Bars
          title={`Cost by day (UTC), ${currency}`}
          unit={currency}
          bars={days.map((name) => ({ name, value: by.get(name)?.cost ?? 0 }))}
          write={(value) => money(String(value), currency)}
        />
      )}
    </section>
  );
}

function By({ what, title, window }: { what: "assistant" | "model"; title: string; window: { first: string; last: string } }) {
  const groups = merged(useAll(what, window), what);
  if (groups === null || groups.length === 0) return null;
  return (
    <section>
      <h2 id={`by-${what}`}>{title}</h2>
      <div className="scroll" tabIndex={0} role="region" aria-labelledby={`by-${what}`}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{what === "assistant" ? "Assistant" : "Model"}</th>
              <th scope="col" className="figure">Talk time</th>
              <th scope="col" className="figure">Audio</th>
              <th scope="col" className="figure">Characters</th>
              <th scope="col" className="figure">Tokens read / written</th>
              <th scope="col" className="figure">GPU</th>
              <th scope="col" className="figure">Cost</th>
            </tr>
          </thead>
          <tbody>
            {groups.map((group) => (
              <tr key={`${group[what]} ${group.currency}`}>
                <th scope="row">{group[what] === "call" ? "Calls themselves" : group[what]}</th>
                <td className="figure">{count(group.amounts.minutes, "min")}</td>
                <td className="figure">{count(group.amounts.audio_seconds, "s")}</td>
                <td className="figure">{count(group.amounts.characters, "")}</td>
                <td className="figure">
                  {count(group.amounts.input_tokens, "")} / {count(group.amounts.output_tokens, "")}
                </td>
                <td className="figure">{count(group.amounts.gpu_seconds, "s")}</td>
                <td className="figure">
                  {group.currency === "" ? "no price" : money(group.cost, group.currency)}
                  {group.currency !== "" && group.unpriced && <small> and some without a price</small>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Prices({ summary }: { summary: Summary }) {
  if (summary.prices.length === 0) return null;
  return (
    <section aria-labelledby="prices">
      <h2 id="prices">Prices</h2>
      <ul className="plain">
        {summary.prices.map((price) => (
          <li key={`${price.model} ${price.unit} ${price.since}`}>
            {price.model}: {price.amount} {price.currency} for {price.per.toLocaleString()} {price.unit.replaceAll("_", " ")}, since {price.since}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** All groups of a window; null: they are being read. There are as many as days, assistants or models: few. */
function useAll(by: string, window: { first: string; last: string }): Group[] | null {
  const groups = useInfiniteQuery({
    queryKey: ["usage", by, window.first, window.last],
    queryFn: ({ pageParam, signal }) =>
      get<PageOf<Group>>(`/usage${query({ ...window, group_by: by, limit: 200, after: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const { hasNextPage, isFetchingNextPage, isError, fetchNextPage } = groups;
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && !isError) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, isError, fetchNextPage]);
  return groups.data === undefined ? null : groups.data.pages.flatMap((page) => page.items);
}

/** What has no price has no currency, and is a group of its own: here it stands with the rest of its name. */
function merged(groups: Group[] | null, what: "assistant" | "model"): Group[] | null {
  if (groups === null) return null;
  const whole = new Map(groups.filter((group) => group.currency !== "").map((group) => [group[what], { ...group }]));
  const alone: Group[] = [];
  for (const group of groups.filter((each) => each.currency === "")) {
    const other = whole.get(group[what]);
    if (other === undefined) alone.push(group);
    else {
      other.unpriced = true;
      other.amounts = sum(other.amounts, group.amounts);
    }
  }
  return [...whole.values(), ...alone];
}

function sum(one: Amounts, other: Amounts): Amounts {
  const names = Object.keys(one) as (keyof Amounts)[];
  return Object.fromEntries(names.map((name) => [name, one[name] + other[name]])) as unknown as Amounts;
}

function day(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

function count(value: number, unit: string): string {
  const text = value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 1 : 0 });
  return unit ? `${text} ${unit}` : text;
}
