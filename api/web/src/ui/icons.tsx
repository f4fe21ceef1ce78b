/** Drawn for this page on a 24-unit grid, 1.6 units thick, round ends. */

import type { ReactNode } from "react";

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true">
      {children}
    </svg>
  );
}

export const MicIcon = () => (
  <Icon>
    <rect x="9" y="3" width="6" height="11" rx="3" />
    <path d="M5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3" />
  </Icon>
);

export const MicOffIcon = () => (
  <Icon>
    <path d="M9 9.5V11a3 3 0 0 0 4.6 2.5M15 10.5V6a3 3 0 0 0-5.7-1.3" />
    <path d="M5.5 11.5a6.5 6.5 0 0 0 10.3 5.3M18.5 11.5c0 1-.2 1.9-.6 2.7M12 18v3M4 4l16 16" />
  </Icon>
);

export const KeyboardIcon = () => (
  <Icon>
    <rect x="2.5" y="6" width="19" height="12" rx="2.5" />
    <path d="M6.5 10h.01M10.2 10h.01M13.8 10h.01M17.5 10h.01M8 14h8" />
  </Icon>
);

export const DeviceIcon = () => (
  <Icon>
    <path d="M4 14v-2a8 8 0 0 1 16 0v2" />
    <rect x="3.5" y="13.5" width="4" height="6.5" rx="1.8" />
    <rect x="16.5" y="13.5" width="4" height="6.5" rx="1.8" />
  </Icon>
);

export const HangUpIcon = () => (
  <Icon>
    <path d="M3 14.5c-.7-1.8.2-3.3 1.6-4.2 4.4-2.8 10.4-2.8 14.8 0 1.4.9 2.3 2.4 1.6 4.2-.3.8-1.1 1.2-1.9 1l-2.4-.6c-.8-.2-1.3-.9-1.3-1.7v-1.4a11 11 0 0 0-6.8 0v1.4c0 .8-.5 1.5-1.3 1.7l-2.4.6c-.8.2-1.6-.2-1.9-1z" />
  </Icon>
);

export const SendIcon = () => (
  <Icon>
    <path d="M12 19V5.5M6 11l6-6 6 6" />
  </Icon>
);

export const FileIcon = () => (
  <Icon>
    <path d="M13.5 3H7.8A1.8 1.8 0 0 0 6 4.8v14.4A1.8 1.8 0 0 0 7.8 21h8.4a1.8 1.8 0 0 0 1.8-1.8V7.5z" />
    <path d="M13.5 3v4.5H18M9 12.5h6M9 16h4" />
  </Icon>
);
