import "../../styles/console-rooms.css";
import "../../styles/console-forms.css";
import "../../styles/console-lists.css";
import { Link } from "react-router";
import { Listed, useList } from "../list";
import { useMay } from "../me";
import { Badge, Empty, PageHead, When } from "../parts";
import type { Summary } from "./shapes";

/** Who may answer: the profile's assistants, to be seen, and one's own. */
export default function Assistants() {
  const may = useMay();
  const list = useList<Summary>(["assistants"], "/assistants");
  const own = list.items.some((each) => each.source === "database");
  return (
    <>
      <PageHead title="Assistants">
        {may("assistants:write") && (
          <Link className="button button-small" to="/assistants/new">
            New assistant
          </Link>
        )}
      </PageHead>
      <Listed list={list} what="assistants" empty={<Empty title="No assistants">The profile names them, under assistants.</Empty>}>
        <ul className="items">
          {list.items.map((each) => (
            <Row key={each.id} assistant={each} />
          ))}
        </ul>
      </Listed>
      {list.read.isSuccess && !own && may("assistants:write") && (
        <p className="hint">
          None is your own yet. <Link to="/assistants/new">Make one</Link> as a copy of one of these: it answers the next call that asks for it.
        </p>
      )}
    </>
  );
}

function Row({ assistant }: { assistant: Summary }) {
  return (
    <li className="item">
      <div className="item-about">
        <h2>
          <Link to={`/assistants/${encodeURIComponent(assistant.id)}`}>{assistant.name}</Link>{" "}
          {assistant.source === "profile" && <Badge kind="quiet">Profile, read-only</Badge>}
        </h2>
        {assistant.description && <p>{assistant.description}</p>}
        <p className="item-meta">
          {assistant.version !== null && <>Version {assistant.version}</>}
          {assistant.updated_at && (
            <>
              , changed <When at={assistant.updated_at} />
            </>
          )}
        </p>
      </div>
      <div className="item-actions">
        <Try assistant={assistant} />
      </div>
    </li>
  );
}

/** Opens the voice page with an assistant, beside the console. */
export function Try({ assistant }: { assistant: { name: string; ref: string } }) {
  const may = useMay();
  if (!may("calls:write")) return null;
  return (
    <a className="button-quiet" href={`/?assistant=${encodeURIComponent(assistant.ref)}`} target="_blank" rel="noopener">
      Try<span className="visually-hidden"> {assistant.name} by voice, in a new tab</span>
    </a>
  );
}
