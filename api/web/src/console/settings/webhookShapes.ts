/** What the API says of webhooks (api/routes/webhooks.py). */

export interface Webhook {
  id: string;
  url: string;
  events: string[];
  description: string;
  enabled: boolean;
  created_at: string;
  old_secret_until: string | null;
}

export interface WebhookWithSecret extends Webhook {
  secret: string;
}

export interface Message {
  id: string;
  event: string;
  status: "pending" | "delivered" | "dead";
  created_at: string;
  attempts: number;
  next_at: string | null;
  delivered_at: string | null;
  answer: number | null;
  problem: string;
}

export const EVENTS = ["call.started", "call.ended", "turn.completed", "file.ready"];
