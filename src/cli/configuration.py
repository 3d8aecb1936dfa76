"""The settings, or what is wrong with them."""

from ..settings import Settings
from .failures import USAGE, CommandFailed


def load() -> Settings:
    """The settings from the environment. Raises CommandFailed, naming each variable that is wrong."""
    from pydantic import ValidationError

    try:
        return Settings()
    except ValidationError as error:
        prefix = Settings.model_config["env_prefix"]
        found = []
        for wrong in error.errors(include_url=False, include_context=False):
            if wrong["type"] == "default_factory_not_called":
                continue  # a default that follows from others, of which one is wrong
            if not wrong["loc"]:  # about several settings; its input is all of them, secrets too
                found.append(wrong["msg"])
                continue
            name = str(wrong["loc"][0])
            variable = f"{prefix}{name}".upper() if name in Settings.model_fields else name
            found.append(f"{variable}: {wrong['msg']} (it is {wrong['input']!r})")
        raise CommandFailed("A setting is not valid", "\n".join(found), USAGE) from None
