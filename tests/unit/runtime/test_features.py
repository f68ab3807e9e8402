"""What `features` and `spec` print fits the specification's own shapes."""

from hafen.runtime import cli, template
from hafen.spec import runtime_config


def test_spec_is_a_configuration() -> None:
    config = runtime_config.from_json(template.config())
    assert config.process is not None
    assert config.process.args == ("sh",)


def test_features_name_what_the_options_know() -> None:
    options = template.features()["mountOptions"]
    assert {"ro", "rro", "rbind", "idmap", "rslave", "nosymfollow"} <= set(options)


def test_every_command_has_a_usage_that_begins_with_its_name() -> None:
    assert all(command.usage.split()[0] == name for name, command in cli.COMMANDS.items())
