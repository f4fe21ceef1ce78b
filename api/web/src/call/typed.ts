/**
 * Typed messages that are not known to be heard yet: whoever comes after an assistant who has left is told them again,
 * and knows doubles by their ids.
 */

/** Messages that are kept; older ones are given up. */
const MOST = 20;

interface Message {
  readonly id: string;
  readonly words: string;
  /** To the assistant who is there now. */
  sent: boolean;
}

interface Line {
  say(words: string, id: string): Promise<void>;
}

export class TypedMessages {
  #messages: Message[] = [];

  add(id: string, words: string): void {
    this.#messages = [...this.#messages.slice(1 - MOST), { id, words, sent: false }];
  }

  /** Send what has not been sent; false: one could not be. */
  async send(line: Line): Promise<boolean> {
    for (let next; (next = this.#messages.find(({ sent }) => !sent)) !== undefined; ) {
      next.sent = true;
      try {
        await line.say(next.words, next.id);
      } catch {
        next.sent = false;
        return false;
      }
    }
    return true;
  }

  /** A question was answered: it and those before it are known to be heard. */
  heard(words: string): void {
    const last = this.#messages.findLastIndex((message) => message.sent && message.words === words);
    this.#messages = this.#messages.slice(last + 1);
  }

  /** The assistant has left: the next one is told all of them. */
  unsend(): void {
    for (const message of this.#messages) message.sent = false;
  }

  clear(): void {
    this.#messages = [];
  }
}
