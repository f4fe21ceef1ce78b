import { type ReactNode, type Ref, useId } from "react";

/** Asks before something is done that cannot be undone; the browser's own dialog keeps the focus inside. */
export function Confirm({
  ref,
  title,
  action,
  onConfirm,
  children,
}: {
  ref: Ref<HTMLDialogElement>;
  title: string;
  action: string;
  onConfirm: () => void;
  children: ReactNode;
}) {
  const id = useId();
  return (
    <dialog ref={ref} className="confirm" aria-labelledby={id}>
      <form method="dialog">
        <h2 id={id}>{title}</h2>
        <p>{children}</p>
        <div className="page-actions">
          {/* First, so that the focus is here when it opens: Enter alone must harm nothing. */}
          <button type="submit" className="button-quiet">
            Cancel
          </button>
          <button type="submit" className="button button-small" onClick={onConfirm}>
            {action}
          </button>
        </div>
      </form>
    </dialog>
  );
}
