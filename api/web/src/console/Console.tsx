import "../styles/console.css";
import "../styles/console-parts.css";
import "../styles/console-calls.css";
import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { BrowserRouter, Navigate, Route, Routes } from "react-router";
import AssistantPage from "./assistants/AssistantPage";
import Assistants from "./assistants/Assistants";
import NewAssistant from "./assistants/NewAssistant";
import CallPage from "./calls/CallPage";
import Calls from "./calls/Calls";
import Models from "./models/Models";
import Settings from "./settings/Settings";
import Usage from "./usage/Usage";
import { Problem } from "./api";
import { hasUnsaved } from "./draft";
import { Empty, Loading, Trouble } from "./parts";
import { Shell } from "./Shell";
import { SignIn } from "./SignIn";
import { useMe } from "./me";

const client: QueryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error) => {
      // A sign-in that has run out leads to a new one, unless that would take what is typed.
      if (error instanceof Problem && error.status === 401 && !hasUnsaved()) client.setQueryData(["me"], null);
    },
  }),
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      // What is refused stays refused; what did not answer may answer now.
      retryDelay: (count) => 400 * 2 ** count,
      retry: (count, error) => count < 2 && (!(error instanceof Problem) || error.status === 0 || error.status >= 500),
    },
  },
});

export default function Console() {
  return (
    <QueryClientProvider client={client}>
      {/* Without transitions: filters that stand in the address answer at once. */}
      <BrowserRouter basename="/console" useTransitions={false}>
        <Gate />
      </BrowserRouter>
    </QueryClientProvider>
  );
}

function Gate() {
  const me = useMe();
  if (me.isPending) return <Loading what="Parley" />;
  if (me.isError) return <Trouble error={me.error} again={() => void me.refetch()} />;
  if (me.data === null) return <SignIn />;
  return (
    <Shell me={me.data}>
      <Routes>
        <Route index element={<Navigate to="/calls" replace />} />
        <Route path="calls" element={<Calls />} />
        <Route path="calls/:id" element={<CallPage />} />
        <Route path="assistants" element={<Assistants />} />
        <Route path="assistants/new" element={<NewAssistant />} />
        <Route path="assistants/:id" element={<AssistantPage />} />
        <Route path="models" element={<Models />} />
        <Route path="usage" element={<Usage />} />
        <Route path="settings/*" element={<Settings />} />
        <Route path="*" element={<Empty title="There is no such page">Begin with the calls.</Empty>} />
      </Routes>
    </Shell>
  );
}
