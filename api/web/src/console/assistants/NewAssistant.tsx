import "../../styles/console-rooms.css";
import "../../styles/console-forms.css";
import "../../styles/console-lists.css";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";
import { type PageOf, ask, get } from "../api";
import { useLeaving } from "../draft";
import { Loading, PageHead, Trouble } from "../parts";
import { SaveBar } from "./AssistantPage";
import { Editor } from "./Editor";
import { type Detail, type Draft, type Rules, type Summary, sent } from "./shapes";

/** A new assistant begins as a copy of another: what a model needs to be told is there already. */
export default function NewAssistant() {
  const [address, setAddress] = useSearchParams();
  const all = useQuery({
    queryKey: ["assistants", "copy"],
    queryFn: ({ signal }) => get<PageOf<Summary>>("/assistants?limit=200", signal),
  });
  const from = address.get("from") ?? all.data?.items[0]?.id ?? "";
  const source = useQuery({
    queryKey: ["assistant", from],
    queryFn: ({ signal }) => ask<Detail>("GET", `/assistants/${encodeURIComponent(from)}`, { signal }),
    enabled: from !== "",
  });
  const rules = useQuery({ queryKey: ["assistant rules"], queryFn: ({ signal }) => get<Rules>("/assistant_rules", signal) });
  const failed = all.error ?? source.error ?? rules.error;
  if (failed) return <Trouble error={failed} again={() => void Promise.all([all.refetch(), source.refetch(), rules.refetch()])} />;
  if (!all.data || !source.data || !rules.data) return <Loading what="what it begins with" />;
  return (
    <article>
      <p className="crumb">
        <Link to="/assistants">Assistants</Link> / New
      </p>
      <PageHead title="New assistant">
        <label className="field">
          <span>Begins as a copy of</span>
          <select value={from} onChange={(event) => setAddress({ from: event.target.value }, { replace: true })}>
            {all.data.items.map((each) => (
              <option key={each.id} value={each.id}>
                {each.name}
              </option>
            ))}
          </select>
        </label>
      </PageHead>
      <Making key={from} given={copied(source.data.body, rules.data)} />
    </article>
  );
}

/** What a tenant's own may be of another: the profile's have more. */
function copied(source: Detail, rules: Rules): Draft {
  const { definition } = source;
  return {
    name: "",
    definition: { ...definition, tools: definition.tools.filter((name) => rules.tools.includes(name)), numbers: [] },
  };
}

function Making({ given }: { given: Draft }) {
  const navigate = useNavigate();
  const client = useQueryClient();
  // What it began with, also where that is read anew meanwhile.
  const [first] = useState(given);
  const [draft, setDraft] = useState(first);
  const make = useMutation({
    mutationFn: () => ask<Detail>("POST", "/assistants", { body: sent(draft) }),
    onSuccess: (made) => {
      client.setQueryData(["assistant", made.body.id], made);
      void client.invalidateQueries({ queryKey: ["assistants"] });
      void navigate(`/assistants/${made.body.id}`);
    },
  });
  useLeaving(!make.isSuccess && draft !== first);
  return (
    <div className="assistant-columns">
      <Editor draft={draft} locked={false} error={make.error} change={setDraft} save={() => make.mutate()}>
        <SaveBar changed={draft !== first}>
          <button type="submit" className="button button-small" disabled={make.isPending}>
            {make.isPending ? "Creating…" : "Create assistant"}
          </button>
          <p>Files that it knows are added once it is there.</p>
        </SaveBar>
      </Editor>
    </div>
  );
}
