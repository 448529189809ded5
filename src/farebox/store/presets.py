"""The presets of accounts in the books."""

from msgspec.structs import astuple

from farebox.core.presets import PRESETS_MAX, VERSIONS_MAX, PresetVersion, next_version
from farebox.ports import PresetInUse, TooManyPresets
from farebox.store.desk import OnDesk
from farebox.store.engine import Db
from farebox.store.rows import each

_preset_from = each(PresetVersion)

_EVERY = 2**31 - 1
"""The highest version that there can be."""


class SqlPresets(OnDesk):
    """The `PresetShelf` port."""

    async def save_preset(
        self, account_id: int, slug: str, system_prompt: str | None, config: str, now_us: int
    ) -> PresetVersion:
        named = {"account": account_id, "slug": slug}

        def save(db: Db) -> PresetVersion:
            row = db.execute(self._sql.latest_preset, named).fetchone()
            latest = None if row is None else _preset_from(row)
            if latest is None and db.execute(self._sql.count_presets, named).fetchone()[0] >= PRESETS_MAX:
                raise TooManyPresets
            saved = next_version(latest, account_id, slug, system_prompt, config, now_us)
            db.execute(self._sql.insert_preset, astuple(saved))
            if saved.version > VERSIONS_MAX:
                db.execute(self._sql.drop_preset_versions, {**named, "until": saved.version - VERSIONS_MAX})
            return saved

        try:
            return await self._desk.change(save)
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
        named = {"account": account_id, "slug": slug, "until": _EVERY}
        return await self._desk.write(self._sql.drop_preset_versions, named) > 0
