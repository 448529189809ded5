"""The presets of accounts in the books."""

from msgspec.structs import astuple

from farebox.core.changes import preset_saved
from farebox.core.presets import PRESETS_MAX, VERSIONS_MAX, PresetVersion, next_version
from farebox.ports import PresetInUse, TooManyPresets
from farebox.store.engine import Db
from farebox.store.rows import each
from farebox.store.trail import Note, SqlTrail

_preset_from = each(PresetVersion)

_EVERY = 2**31 - 1
"""The highest version that there can be."""


class SqlPresets(SqlTrail):
    """The `PresetShelf` port."""

    async def save_preset(
        self, account_id: int, slug: str, system_prompt: str | None, config: str, now_us: int
    ) -> PresetVersion:
        named = {"account": account_id, "slug": slug}

        def save(db: Db, note: Note) -> PresetVersion:
            db.execute(self._sql.lock_account, (account_id,))
            row = db.execute(self._sql.latest_preset, named).fetchone()
            latest = None if row is None else _preset_from(row)
            if latest is None and db.execute(self._sql.count_presets, named).fetchone()[0] >= PRESETS_MAX:
                raise TooManyPresets
            saved = next_version(latest, account_id, slug, system_prompt, config, now_us)
            db.execute(self._sql.insert_preset, astuple(saved))
            note(preset_saved(account_id, slug, None if latest is None else latest.version, saved.version))
            if saved.version > VERSIONS_MAX:
                db.execute(self._sql.drop_preset_versions, {**named, "until": saved.version - VERSIONS_MAX})
            return saved

        try:
            return await self._noting(save)
        except self.engine.conflicting as error:
            raise PresetInUse(slug) from error

    async def preset(self, account_id: int, slug: str, version: int | None = None) -> PresetVersion | None:
        named = {"account": account_id, "slug": slug}
        if version is None:
            return await self._desk.row(_preset_from, self._sql.latest_preset, named)
        return await self._desk.row(_preset_from, self._sql.preset_version, {**named, "version": version})

    async def presets(self, account_id: int) -> list[PresetVersion]:
        return await self._desk.rows(_preset_from, self._sql.latest_presets, {"account": account_id})

    async def preset_versions(self, account_id: int, slug: str) -> list[PresetVersion]:
        named = {"account": account_id, "slug": slug}
        return await self._desk.rows(_preset_from, self._sql.preset_versions, named)

    async def drop_preset(self, account_id: int, slug: str) -> bool:
        named = {"account": account_id, "slug": slug}

        def drop(db: Db, note: Note) -> bool:
            db.execute(self._sql.lock_account, (account_id,))
            latest = db.execute(self._sql.latest_preset, named).fetchone()
            if latest is not None:
                db.execute(self._sql.drop_preset_versions, {**named, "until": _EVERY})
                note(preset_saved(account_id, slug, _preset_from(latest).version, None))
            return latest is not None

        return await self._noting(drop)
