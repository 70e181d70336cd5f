/** The catalog as this browser knows it, kept current by Jupyter's event stream. */

import { VDomModel } from '@jupyterlab/ui-components';
import { ServerConnection } from '@jupyterlab/services';
import type { Event, ServiceManager } from '@jupyterlab/services';
import { Poll } from '@lumino/polling';

import { CatalogApi, Refusal } from './api';
import type { ICatalog, IChanges, IGroup, IOutlook } from './api';

export const EVENT_SCHEMA = 'https://fs-notebook.dev/events/catalog/v1';

/**
 * Why what is shown may not be current: the server does not answer, it has no extension of ours, or
 * the extension explained why it cannot say.
 */
export type Notice =
  | { readonly kind: 'gone' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly text: string };

/** What is going on about a group: what a promotion would do is asked, or a change is sent. */
export type Doing = 'asking' | 'sending';

// Lab's event socket backs off for up to half a minute after an outage. The pulse notices the outage
// and the return, and picks up what was missed; changes themselves come by event.
const PULSE_MS = 4000;
const PULSE_GONE_MS = 1500;
const PULSE_ABSENT_MS = 30000;

export class CatalogModel extends VDomModel {
  constructor(services: ServiceManager.IManager) {
    super();
    this.api = new CatalogApi(services.serverSettings);
    this._services = services;
    services.events.stream.connect(this._onEvent, this);
    this._pulse = new Poll({
      auto: true,
      factory: () => this._read(false),
      frequency: { interval: PULSE_MS, backoff: false, max: PULSE_ABSENT_MS },
      name: 'fs-notebook:pulse',
      standby: 'when-hidden'
    });
  }

  readonly api: CatalogApi;

  /** False until the first answer of any kind. */
  get ready(): boolean {
    return this._ready;
  }

  get groups(): readonly IGroup[] {
    return this._groups;
  }

  get connection(): Readonly<Record<string, unknown>> {
    return this._connection;
  }

  get notice(): Notice | null {
    return this._notice;
  }

  /** Whether a promote or a roll-back could be sent now. */
  get writable(): boolean {
    return this._ready && this._notice === null;
  }

  group(name: string): IGroup | undefined {
    return this._byName.get(name);
  }

  /** Which request about this group is under way, if one is. */
  busy(name: string): Doing | null {
    return this._busy.get(name) ?? null;
  }

  /** What promoting a cell's text, or else the group's latest version, would do. */
  outlook(name: string, source: string | null): Promise<IOutlook> {
    const what = source === null ? { name } : { source };
    return this._during(name, 'asking', () => this.api.outlook(what));
  }

  promoteSource(name: string, source: string): Promise<IGroup> {
    return this._act(name, () => this.api.promoteSource(source));
  }

  promote(name: string): Promise<IGroup> {
    return this._act(name, () => this.api.promote(name));
  }

  rollback(name: string): Promise<IGroup> {
    return this._act(name, () => this.api.rollback(name));
  }

  /** Read the whole catalog again; requests that come meanwhile share one more read. */
  async refresh(): Promise<void> {
    if (this._reading) {
      this._again = true;
      return this._reading;
    }
    this._reading = this._readWhile();
    return this._reading;
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._pulse.dispose();
    this._services.events.stream.disconnect(this._onEvent, this);
    super.dispose();
  }

  private async _readWhile(): Promise<void> {
    try {
      do {
        this._again = false;
        await this._read(true);
      } while (this._again && !this.isDisposed);
    } finally {
      this._reading = null;
    }
  }

  private _onEvent(_: Event.IManager, event: Event.Emission): void {
    if (event.schema_id === EVENT_SCHEMA) {
      void this.refresh();
    }
  }

  /** Change something about a group by `action`, and read what became of the catalog. */
  async change<T>(name: string, action: (api: CatalogApi) => Promise<T>): Promise<T> {
    try {
      return await this._during(name, 'sending', () => action(this.api));
    } finally {
      void this.refresh();
    }
  }

  private _act(name: string, action: () => Promise<IGroup>): Promise<IGroup> {
    return this.change(name, async () => {
      const group = await action();
      this._put(group);
      return group;
    });
  }

  private async _during<T>(name: string, doing: Doing, action: () => Promise<T>): Promise<T> {
    this._busy.set(name, doing);
    this.stateChanged.emit();
    try {
      return await action();
    } catch (error) {
      if (error instanceof ServerConnection.NetworkError) {
        this._notify({ kind: 'gone' });
      }
      throw error;
    } finally {
      this._busy.delete(name);
      this.stateChanged.emit();
    }
  }

  /** Read once; never rejects, for the outcome is the notice. */
  private async _read(fresh: boolean): Promise<void> {
    const order = ++this._asked;
    try {
      const catalog = await this.api.catalog(this._notice ? '' : this._revision, fresh);
      if (this.isDisposed || order < this._answered) {
        return; // A later question was answered first: this answer is older.
      }
      this._answered = order;
      if (!('unchanged' in catalog)) {
        if ('since' in catalog && catalog.since !== this._revision) {
          // It tells what changed since another state than the one that is held by now.
          this._revision = '';
          void this.refresh();
          return;
        }
        this._take('since' in catalog ? this._merged(catalog) : catalog);
      }
      this._notify(null);
    } catch (error) {
      if (!this.isDisposed && order >= this._answered) {
        this._answered = order;
        this._notify(this._explain(error));
      }
    }
  }

  private _explain(error: unknown): Notice {
    if (error instanceof ServerConnection.NetworkError) {
      return { kind: 'gone' };
    }
    if (error instanceof Refusal) {
      return error.status === 404
        ? { kind: 'absent' }
        : { kind: 'refused', text: error.explanation };
    }
    return { kind: 'refused', text: String(error) };
  }

  /** The catalog that is known, with what changed in it. */
  private _merged(changes: IChanges): ICatalog {
    const byName = new Map(this._byName);
    changes.gone.forEach(name => byName.delete(name));
    changes.groups.forEach(group => byName.set(group.name, group));
    return { ...changes, groups: [...byName.values()] };
  }

  private _take(catalog: ICatalog): void {
    this._revision = catalog.revision;
    this._connection = catalog.connection;
    this._groups = catalog.groups;
    this._byName = new Map(catalog.groups.map(group => [group.name, group]));
    this._changed = true;
  }

  private _put(group: IGroup): void {
    // What is held is no revision of the server's any more: the next read is of all.
    this._revision = '';
    this._byName.set(group.name, group);
    this._groups = [...this._byName.values()];
    this._changed = true;
  }

  private _notify(notice: Notice | null): void {
    const before = JSON.stringify(this._notice);
    if (!this._ready || this._changed || before !== JSON.stringify(notice)) {
      this._ready = true;
      this._changed = false;
      this._notice = notice;
      const interval = !notice
        ? PULSE_MS
        : notice.kind === 'absent'
          ? PULSE_ABSENT_MS
          : PULSE_GONE_MS;
      if (this._pulse.frequency.interval !== interval) {
        this._pulse.frequency = { ...this._pulse.frequency, interval };
      }
      this.stateChanged.emit();
    }
  }

  private readonly _services: ServiceManager.IManager;
  private readonly _pulse: Poll;
  private readonly _busy = new Map<string, Doing>();
  private _byName = new Map<string, IGroup>();
  private _groups: readonly IGroup[] = [];
  private _connection: Readonly<Record<string, unknown>> = {};
  private _notice: Notice | null = null;
  private _revision = '';
  private _ready = false;
  private _changed = false;
  private _asked = 0;
  private _answered = 0;
  private _reading: Promise<void> | null = null;
  private _again = false;
}
