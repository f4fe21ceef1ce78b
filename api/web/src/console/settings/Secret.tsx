import { useEffect, useRef, useState } from "react";

/** Something that is shown this once: to be copied, and then put away. */
export function Secret({ title, value, children, done }: { title: string; value: string; children: React.ReactNode; done: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const text = useRef<HTMLElement>(null);
  const [copied, setCopied] = useState(false);
  useEffect(() => heading.current?.focus(), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      setCopied(true);
    } catch {
      // Without leave to the clipboard one copies by hand what is marked here.
      if (text.current) window.getSelection()?.selectAllChildren(text.current);
    }
  };
  return (
    <section className="secret" aria-label={title}>
      <h3 ref={heading} tabIndex={-1}>
        {title}
      </h3>
      <p>{children} It is shown this once.</p>
      <p className="secret-value">
        <code ref={text}>{value}</code>
      </p>
      <div className="page-actions">
        <button type="button" className="button button-small" onClick={() => void copy()}>
          {copied ? "Copied" : "Copy"}
        </button>
        <button type="button" className="button-quiet" onClick={done}>
          I have put it away
        </button>
      </div>
      <p className="visually-hidden" role="status">
        {copied && "Copied to the clipboard"}
      </p>
    </section>
  );
}
