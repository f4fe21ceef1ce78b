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
          <button type="submit" className="button button-small" onClick={onConfirm}>
            {action}
          </button>
          <button type="submit" className="button-quiet">
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
