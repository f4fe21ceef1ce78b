/** The backend, as the console asks it: JSON, problems as errors, time limits on everything. */

const SECONDS = 15;

/** What RFC 9457 says of an error; `errors` names the fields at fault. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly errors: { field: string; problem: string }[] = [],
  ) {
    super(detail || title);
  }

  field(name: string): string | undefined {
    return this.errors.find((error) => error.field === name)?.problem;
  }
}

export interface PageOf<Item> {
  items: Item[];
  next: string | null;
}

interface Options {
  body?: unknown;
  form?: FormData;
  ifMatch?: string;
  signal?: AbortSignal;
}

export interface Answer<Body> {
  body: Body;
  etag: string | null;
}

/** Ask, and return the answer with its ETag. Every POST has a key, so that a repeat after a lost answer does no harm. */
export async function ask<Body>(method: string, path: string, options: Options = {}): Promise<Answer<Body>> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  if (options.ifMatch !== undefined) headers["if-match"] = options.ifMatch;
  if (method === "POST") headers["idempotency-key"] = crypto.randomUUID();
  const limit = AbortSignal.timeout(SECONDS * 1000);
  let answer: Response;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: options.form ?? (options.body === undefined ? null : JSON.stringify(options.body)),
      signal: options.signal ? AbortSignal.any([options.signal, limit]) : limit,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "No answer", limit.aborted ? `No answer within ${SECONDS} s.` : "The server cannot be reached.");
  }
  if (!answer.ok) throw await problemOf(answer);
  const body = answer.status === 204 ? undefined : await answer.json();
  return { body: body as Body, etag: answer.headers.get("etag") };
}

export async function get<Body>(path: string, signal?: AbortSignal): Promise<Body> {
  return (await ask<Body>("GET", path, signal ? { signal } : {})).body;
}

async function problemOf(answer: Response): Promise<Problem> {
  try {
    const told = await answer.json();
    return new Problem(answer.status, String(told.title ?? ""), String(told.detail ?? ""), told.errors ?? []);
  } catch {
    return new Problem(answer.status, "Error", `The server answered ${answer.status}.`);
  }
}

/** Write a query string, leaving out what is empty. */
export function query(parts: Record<string, string | number | null | undefined>): string {
  const given = Object.entries(parts).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}
