"""The ``kpcache`` command.

- ``main``         arguments, exit codes, the one place where errors become words.
- one module a command: ``serve``, ``get``, ``decrypt``, ``status``, ``wait``, ``whoami``,
  ``check_config``, ``clear_alarm``, ``ledger``, and the package ``keyring``; each has
  ``add_arguments(parser)`` and ``run(args)``, which returns the exit code.
- ``formats``      key pairs as PEM, DER, OpenSSH, JWK.
- ``config_file``  finding, reading and overriding settings; ``accounts`` whom they name.
- ``reporters``    what ``serve`` shows while it runs.
- ``output``, ``fill``, ``tables``, ``whoami_view``  what the commands share.

Modules here import at their top only what is quick to import: ``kpcache get`` is used in scripts.
"""
