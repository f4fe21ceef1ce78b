/** Sends a file with its progress, which fetch does not tell. */

import { Problem } from "../api";

const SECONDS = 120;

/** What the server takes (api/routes/uploads.py); said before, and checked before sending. */
export const FILE_BYTES = 10 * 2 ** 20;
export const FILES = 20;

export interface Sent {
  name: string;
  characters: number;
  note: string;
}

export function upload(path: string, file: File, progress: (part: number) => void, signal: AbortSignal): Promise<Sent> {
  if (file.size > FILE_BYTES) {
    return Promise.reject(new Problem(413, "Too large", `${file.name} has ${size(file.size)}; a file may have ${size(FILE_BYTES)}.`));
  }
  const form = new FormData();
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1${path}`);
    request.timeout = SECONDS * 1000;
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      const told = request.response;
      if (request.status === 201) resolve(told as Sent);
      else reject(new Problem(request.status, String(told?.title ?? "Error"), String(told?.detail ?? `The server answered ${request.status}.`)));
    };
    request.ontimeout = () => reject(new Problem(0, "No answer", `No answer within ${SECONDS} s.`));
    request.onerror = () => reject(new Problem(0, "No answer", "The server cannot be reached."));
    request.onabort = () => reject(new Problem(0, "Stopped", `${file.name} was not sent.`));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/** Bytes as people read them. */
export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 2 ** 20 ? `${Math.round(bytes / 1024)} kB` : `${(bytes / 2 ** 20).toFixed(1).replace(/\.0$/, "")} MB`;
}
