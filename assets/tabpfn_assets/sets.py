"""Data as the server holds it: train sets and test sets, and where they came from."""

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from tabpfn_assets._record import Record
from tabpfn_assets.names import PublicUrl, Task

#: A class label in its JSON type, as `metadata.classes` and `preds` carry it.
ClassLabel = StrictBool | StrictInt | StrictFloat | StrictStr


class Feature(Record):
    """One feature column.

    Args:
        name: Column name.
        dtype: Arrow type as text, for instance `double` or `dictionary<values=string, indices=int8, ordered=0>`;
            None where it is not known, because the model was taken over from elsewhere.
    """

    name: str
    dtype: str | None = None


class SourceRef(Record):
    """Where data came from, without anything secret.

    Args:
        uris: Source URLs; user info and query are stripped.
        fingerprint: Identity of footer, object, columns and target (design.md, Identity).
        size_bytes: Size of the source objects in bytes.
        rows: Rows in the source.
        refined: Whether its rows were filtered or cast on the way; by what, only the fingerprint tells, since a filter
            may name people.
    """

    uris: tuple[PublicUrl, ...]
    fingerprint: str | None = None
    size_bytes: int | None = Field(default=None, ge=0)
    rows: int = Field(ge=0)
    refined: bool = False


class TrainSet(Record):
    """A train set on the server, ready to be fitted.

    Args:
        train_set_upload_id: The server's id of the upload.
        task: What it was checked for.
        target: Target column.
        features: Feature columns in the order sent.
        classes: Sorted class labels of the target; None for regression.
        rows: Rows sent.
        source: Where the rows came from.
        bytes_sent: Bytes put to storage; 0 when the server had the content already.
        duplicate: Whether the server already had this content (409, contract 2.2).
    """

    train_set_upload_id: str
    task: Task
    target: str
    features: tuple[Feature, ...]
    classes: tuple[ClassLabel, ...] | None = None
    rows: int = Field(ge=1)
    source: SourceRef
    bytes_sent: int = Field(default=0, ge=0)
    duplicate: bool = False


class TestSet(Record):
    """A test set on the server, bound to one fitted model (contract 1.7).

    Args:
        test_set_upload_id: The server's id of the upload.
        fitted_train_set_id: The model it was prepared for.
        rows: Rows sent.
        source: Where the rows came from.
        bytes_sent: Bytes put to storage; 0 when the server had the content already.
        duplicate: Whether the server already had this content.
    """

    __test__ = False  # the API's name; pytest would take it for a test class

    test_set_upload_id: str
    fitted_train_set_id: str
    rows: int = Field(ge=1)
    source: SourceRef
    bytes_sent: int = Field(default=0, ge=0)
    duplicate: bool = False
