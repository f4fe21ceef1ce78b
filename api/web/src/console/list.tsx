/** Lists that are read page by page. */

import { type UseInfiniteQueryResult, useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { type PageOf, get, query } from "./api";
import { Loading, Trouble } from "./parts";

type Parts = Record<string, string | number | null | undefined>;

export interface List<Item> {
  items: Item[];
  read: UseInfiniteQueryResult<unknown>;
}

/** Read a list; `key` and what it is narrowed to tell it from others. */
export function useList<Item>(key: readonly string[], path: string, parts: Parts = {}, options: { enabled?: boolean; every?: (items: Item[]) => number | false } = {}): List<Item> {
  const read = useInfiniteQuery({
    queryKey: [...key, parts],
    queryFn: ({ pageParam, signal }) => get<PageOf<Item>>(`${path}${query({ ...parts, limit: 50, after: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
    enabled: options.enabled ?? true,
    refetchInterval: (asked) => options.every?.(asked.state.data?.pages.flatMap((page) => page.items) ?? []) ?? false,
  });
  return { items: read.data?.pages.flatMap((page) => page.items) ?? [], read };
}

/** A list as it is read: waiting, trouble, nothing, or items with a way to more. */
export function Listed<Item>({ list, what, empty, children }: { list: List<Item>; what: string; empty: ReactNode; children: ReactNode }) {
  const { read, items } = list;
  if (read.isPending) return <Loading what={what} />;
  if (read.isError && items.length === 0) return <Trouble error={read.error} again={() => void read.refetch()} />;
  if (items.length === 0) return empty;
  return (
    <>
      {children}
      {read.isError && <p role="alert">{read.error.message}</p>}
      {read.hasNextPage && (
        <button type="button" className="button-quiet" disabled={read.isFetchingNextPage} onClick={() => void read.fetchNextPage()}>
          {read.isFetchingNextPage ? "Reading…" : "Show more"}
        </button>
      )}
    </>
  );
}
