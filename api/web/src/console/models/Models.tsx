import "../../styles/console-rooms.css";
import { useQuery } from "@tanstack/react-query";
import { seconds } from "../../call/turn";
import { type PageOf, get } from "../api";
import { Badge, Empty, Loading, PageHead, Trouble } from "../parts";

interface Model {
  name: string;
  role: "stt" | "llm" | "tts";
  engine: string;
  status: string;
  message: string;
  replicas: { running: number; wanted: number; stopping: number } | null;
  circuit: "closed" | "open" | null;
  times: { stage: string; turns: number; p50_ms: number; p95_ms: number } | null;
}

interface RoleRoute {
  role: "stt" | "llm" | "tts";
  default: string;
  fallbacks: string[];
  weights: Record<string, number>;
  patience: number;
}

const ROLES = { stt: "Speech to text", llm: "Language model", tts: "Voice" } as const;
const FELT: Record<string, string> = {
  stt_ms: "End of speech to text",
  llm_first_token_ms: "First word",
  tts_first_byte_ms: "First sound",
};
const LOOK_MS = 5_000;

/** What runs, how it does, and who is asked for what. */
export default function Models() {
  const models = useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => get<PageOf<Model>>("/models", signal),
    refetchInterval: LOOK_MS,
  });
  const routes = useQuery({
    queryKey: ["routes"],
    queryFn: ({ signal }) => get<PageOf<RoleRoute>>("/routes", signal),
    refetchInterval: LOOK_MS,
  });
  if (models.isPending || routes.isPending) return <Loading what="models" />;
  const failed = models.error ?? routes.error;
  if (failed && (models.data === undefined || routes.data === undefined)) {
    return <Trouble error={failed} again={() => void Promise.all([models.refetch(), routes.refetch()])} />;
  }
  const all = models.data?.items ?? [];
  if (all.length === 0) return <Empty title="No models">The profile names them, under models.</Empty>;
  return (
    <>
      <PageHead title="Models">
        <span className="hint">Looked at every {LOOK_MS / 1000} s; times are of the last turns</span>
      </PageHead>
      {failed && <p role="alert">{failed.message}</p>}
      {(routes.data?.items ?? []).map((route) => (
        <section key={route.role} className="role" aria-labelledby={`role-${route.role}`}>
          <h2 id={`role-${route.role}`}>{ROLES[route.role]}</h2>
          <ModelTable route={route} models={all.filter((model) => model.role === route.role)} />
        </section>
      ))}
    </>
  );
}

function ModelTable({ route, models }: { route: RoleRoute; models: readonly Model[] }) {
  const given = Object.values(route.weights).reduce((sum, share) => sum + share, 0);
  const place = (name: string): string => {
    if (name === route.default) return `${Math.round((1 - given) * 100)}% of calls`;
    const share = route.weights[name];
    if (share !== undefined) return `${Math.round(share * 100)}% of calls`;
    const at = route.fallbacks.indexOf(name);
    return at < 0 ? "not asked by the route" : `stands by, ${at + 1}.`;
  };
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={`Models: ${ROLES[route.role]}`}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">Health</th>
            <th scope="col">Replicas</th>
            <th scope="col">Route</th>
            <th scope="col" className="figure">
              {FELT[models.find((model) => model.times)?.times?.stage ?? ""] ?? "Time"}, p50 / p95
            </th>
          </tr>
        </thead>
        <tbody>
          {models.map((model) => (
            <tr key={model.name}>
              <th scope="row">
                {model.name}
                <small> {model.engine}</small>
              </th>
              <td>
                <Badge kind={model.status === "RUNNING" ? "live" : "warn"}>{model.status.toLowerCase().replaceAll("_", " ")}</Badge>
                {model.circuit === "open" && <Badge kind="warn">only failed of late</Badge>}
                {model.message && <p className="hint">{model.message}</p>}
              </td>
              <td>
                {model.replicas === null
                  ? "unknown"
                  : `${model.replicas.running} of ${model.replicas.wanted}${model.replicas.stopping ? `, ${model.replicas.stopping} stopping` : ""}`}
              </td>
              <td>
                <Share part={model.name === route.default ? 1 - given : (route.weights[model.name] ?? 0)} />
                {place(model.name)}
              </td>
              <td className="figure">
                {model.times === null ? (
                  "no turn of late"
                ) : (
                  <>
                    {milliseconds(model.times.p50_ms)} / {milliseconds(model.times.p95_ms)}
                    <small> {model.times.turns} turns</small>
                  </>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Share({ part }: { part: number }) {
  return (
    <span className="share" aria-hidden="true">
      <span style={{ width: `${part * 100}%` }} />
    </span>
  );
}

function milliseconds(value: number): string {
  return value < 1000 ? `${Math.round(value)} ms` : seconds(value);
}
