"""gluon-bn data info, gluon-bn data fetch"""

from pathlib import Path
from typing import Optional

from gluon_bn.cli import options as o
from gluon_bn.cli.reporting import reports_errors, say


@reports_errors
def data_info_command(data_dir: Optional[Path] = o.DataDirOption):
    """Say which files are there and whether they are right; downloads nothing."""
    from gluon_bn.data import data_info

    info = data_info(data_dir)
    say(f"Fashion-MNIST in {info['folder']}")
    for name, state in info["files"].items():
        say(f"  {name:28} {state}")


@reports_errors
def data_fetch_command(data_dir: Optional[Path] = o.DataDirOption):
    """Download the files that are not there yet, and check all of them."""
    from gluon_bn.data import fetch

    say(f"Fashion-MNIST is complete in {fetch(data_dir)}")
