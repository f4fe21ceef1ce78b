import "../../styles/console-rooms.css";
import "../../styles/console-forms.css";
import "../../styles/console-lists.css";
import { NavLink, Navigate, Route, Routes } from "react-router";
import { useMay } from "../me";
import { Empty, PageHead } from "../parts";
import { AuditLog } from "./AuditLog";
import { Keys } from "./Keys";
import { People } from "./People";
import { Tenant } from "./Tenant";
import { WebhookPage } from "./WebhookPage";
import { Webhooks } from "./Webhooks";

const PARTS = [
  { to: "/settings/keys", name: "API keys", scope: "keys:read" },
  { to: "/settings/people", name: "People", scope: "people:read" },
  { to: "/settings/webhooks", name: "Webhooks", scope: "webhooks:read" },
  { to: "/settings/tenant", name: "Tenant", scope: "tenant:read" },
  { to: "/settings/audit", name: "Audit log", scope: "audit:read" },
];

/** What is set for the whole tenant; each sees what they may. */
export default function Settings() {
  const may = useMay();
  const mine = PARTS.filter((part) => may(part.scope));
  const first = mine[0];
  if (first === undefined) return <Empty title="Nothing to set">An owner of this tenant can give you another role.</Empty>;
  const nothing = <Empty title="There is no such page">Or your role does not show it.</Empty>;
  return (
    <>
      <PageHead title="Settings" />
      <div className="settings">
        <nav className="parts" aria-label="Settings">
          {mine.map((part) => (
            <NavLink key={part.to} to={part.to}>
              {part.name}
            </NavLink>
          ))}
        </nav>
        <div className="settings-part">
          <Routes>
            <Route index element={<Navigate to={first.to} replace />} />
            {may("keys:read") && <Route path="keys" element={<Keys />} />}
            {may("people:read") && <Route path="people" element={<People />} />}
            {may("webhooks:read") && <Route path="webhooks" element={<Webhooks />} />}
            {may("webhooks:read") && <Route path="webhooks/:id" element={<WebhookPage />} />}
            {may("tenant:read") && <Route path="tenant" element={<Tenant />} />}
            {may("audit:read") && <Route path="audit" element={<AuditLog />} />}
            <Route path="*" element={nothing} />
          </Routes>
        </div>
      </div>
    </>
  );
}
