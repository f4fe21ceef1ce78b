import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { ask } from "../api";
import { Confirm } from "../Confirm";
import { Listed, useList } from "../list";
import { useMay } from "../me";
import { When } from "../parts";
import { FILES, FILE_BYTES, size, upload } from "./upload";

interface FileInfo {
  id: string;
  name: string;
  size: number;
  stored: boolean;
  created_at: string;
}

/** Files that an assistant looks things up in. */
export function Knowledge({ id }: { id: string }) {
  const may = useMay();
  const client = useQueryClient();
  const list = useList<FileInfo>(["files", id], "/files", { assistant: id }, { enabled: may("files:read") });
  if (!may("files:read")) return null;
  const changed = () => void client.invalidateQueries({ queryKey: ["files", id] });
  const writes = may("assistants:write") && may("files:write");
  return (
    <section className="card" aria-labelledby="knowledge">
      <h2 id="knowledge">Knowledge</h2>
      {writes && <Add id={id} count={list.items.length} added={changed} />}
      <Listed
        list={list}
        what="files"
        empty={<p className="hint">{writes ? "Nothing yet: add a file, and the next call can look things up in it." : "It knows no files."}</p>}
      >
        <ul className="plain files">
          {list.items.map((file) => (
            <Row key={file.id} file={file} writes={writes} gone={changed} />
          ))}
        </ul>
      </Listed>
    </section>
  );
}

function Add({ id, count, added }: { id: string; count: number; added: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  const stop = useRef<AbortController>(null);
  const [now, setNow] = useState<{ name: string; part: number } | null>(null);
  const [told, setTold] = useState<{ text: string; wrong: boolean }[]>([]);
  useEffect(() => () => stop.current?.abort(), []);

  const send = async (files: readonly File[]) => {
    const stopping = (stop.current = new AbortController());
    setTold([]);
    for (const file of files) {
      if (stopping.signal.aborted) break;
      setNow({ name: file.name, part: 0 });
      try {
        const sent = await upload(`/assistants/${encodeURIComponent(id)}/files`, file, (part) => setNow({ name: file.name, part }), stopping.signal);
        const text = `${sent.name}: ${sent.characters.toLocaleString()} characters read.${sent.note ? ` ${sent.note}` : ""}`;
        setTold((before) => [...before, { text, wrong: false }]);
        added();
      } catch (error) {
        setTold((before) => [...before, { text: (error as Error).message, wrong: true }]);
      }
    }
    setNow(null);
  };

  return (
    <div
      className="add-files"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        if (now === null) void send([...event.dataTransfer.files]);
      }}
    >
      <p className="hint" id="knowledge-limits">
        Text, Markdown, CSV, PDF or DOCX, {size(FILE_BYTES)} each, {count} of {FILES} files. A call looks things up in the newest 100,000
        characters.
      </p>
      <input
        ref={input}
        type="file"
        multiple
        className="visually-hidden"
        tabIndex={-1}
        aria-label="Files to add"
        onChange={(event) => {
          void send([...(event.target.files ?? [])]);
          event.target.value = "";
        }}
      />
      {now === null ? (
        <button type="button" className="button-line" aria-describedby="knowledge-limits" onClick={() => input.current?.click()}>
          Add files
        </button>
      ) : (
        <p className="sending">
          <progress value={now.part} aria-label={`Sending ${now.name}`} />
          <span>
            {now.name}: {now.part < 1 ? `${Math.round(now.part * 100)}% sent` : "being read"}
          </span>
          <button type="button" className="button-quiet" onClick={() => stop.current?.abort()}>
            Stop
          </button>
        </p>
      )}
      <div role="status">
        {told.map(({ text, wrong }) => (
          <p key={text} className={wrong ? "entry-problem" : "hint"}>
            {text}
          </p>
        ))}
      </div>
    </div>
  );
}

function Row({ file, writes, gone }: { file: FileInfo; writes: boolean; gone: () => void }) {
  const confirm = useRef<HTMLDialogElement>(null);
  const remove = useMutation({ mutationFn: () => ask("DELETE", `/files/${file.id}`), onSuccess: gone });
  return (
    <li>
      <div>
        {file.stored ? (
          <a href={`/api/v1/files/${file.id}/content`} download={file.name}>
            {file.name}
          </a>
        ) : (
          file.name
        )}
        <small>
          {size(file.size)}, <When at={file.created_at} />
        </small>
        {remove.error && <p role="alert">{remove.error.message}</p>}
      </div>
      {writes && (
        <button type="button" className="button-quiet" disabled={remove.isPending} onClick={() => confirm.current?.showModal()}>
          Delete<span className="visually-hidden"> {file.name}</span>
        </button>
      )}
      <Confirm ref={confirm} title={`Delete ${file.name}?`} action="Delete" onConfirm={() => remove.mutate()}>
        The next call knows it no more; a call in progress may still.
      </Confirm>
    </li>
  );
}
