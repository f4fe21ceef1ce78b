import { useQuery } from "@tanstack/react-query";
import { Problem, get } from "./api";

export type Role = "owner" | "engineer" | "operator" | "viewer";

export interface Me {
  id: string;
  kind: "person" | "key";
  name: string;
  role: Role | null;
  scopes: string[];
  tenant: { id: string; name: string };
}

/** Who is signed in; null: nobody is. */
export function useMe() {
  return useQuery<Me | null>({
    queryKey: ["me"],
    queryFn: async ({ signal }) => {
      try {
        return await get<Me>("/me", signal);
      } catch (error) {
        if (error instanceof Problem && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: 60_000,
  });
}

/** Whether the one who is signed in may do something, as `calls:write`. */
export function useMay(): (scope: string) => boolean {
  const scopes = useMe().data?.scopes;
  return (scope) => scopes?.includes(scope) ?? false;
}
