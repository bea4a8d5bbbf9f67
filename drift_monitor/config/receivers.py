"""What a configuration says about receivers: one section for each type. No I/O.

What a request to each looks like is in `receivers/templates/`, where `${parameters.X}` are the fields here.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, HttpUrl, JsonValue, model_validator

from drift_monitor.core.policy import Duration, Model


class HttpReceiver(Model):
    """What every receiver over HTTP has.

    Attributes:
        type: which of the receivers this is.
    """

    type: str
    url: HttpUrl
    timeout: Annotated[Duration, Field(description="total deadline of one attempt, over all its requests")] = (
        timedelta(seconds=15)
    )
    allow_hosts: Annotated[
        tuple[str, ...],
        Field(description="hosts that may be reached; the url's own host when empty"),
    ] = ()
    allow_private: Annotated[
        bool, Field(description="allow loopback and private addresses; cloud metadata stays blocked")
    ] = True


class WebhookReceiver(HttpReceiver):
    """Signed CloudEvents over HTTP (Standard Webhooks): for people's tools, and for a pipeline of your own.

    Attributes:
        type: `webhook`.
        url: where messages are posted.
    """

    type: Literal["webhook"]
    secret_file: Annotated[Path, Field(description="one `whsec_...` secret a line; all sign while a key rotates")]


USERNAME_PATTERN = "^[^:]+$"
_TOKEN_FILE = "file with the bearer token; read for each message"  # noqa: S105
_Token = Annotated[Path | None, Field(description=_TOKEN_FILE)]
_NeededToken = Annotated[Path, Field(description=_TOKEN_FILE)]
_Text = Annotated[str, Field(min_length=1)]
_Inputs = dict[str, JsonValue] | None


class _Password(HttpReceiver):
    """A receiver that takes a token, or a user name and a password."""

    must_log_in: ClassVar[bool] = False
    token_file: _Token = None
    username: Annotated[
        str | None, Field(min_length=1, pattern=USERNAME_PATTERN, description="goes with `password_file`")
    ] = None
    password_file: Annotated[Path | None, Field(description="file with the password; read for each message")] = (
        None
    )

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("`username` and `password_file` go together: give both or neither")
        if self.token_file is not None and self.username is not None:
            raise ValueError("give `token_file`, or `username` and `password_file`, but not both")
        if self.must_log_in and self.token_file is None and self.username is None:
            raise ValueError("needs `token_file`, or `username` and `password_file`")
        return self


class Airflow2Receiver(_Password):
    """A run of an Airflow 2 DAG, through its REST API v1.

    Attributes:
        type: `airflow2`.
        url: of the webserver.
        dag: id of the DAG.
        inputs: the run's `conf`; the event's `data` when absent.
    """

    must_log_in: ClassVar[bool] = True
    type: Literal["airflow2"]
    dag: _Text
    inputs: _Inputs = None


class Airflow3Receiver(_Password):
    """A run of an Airflow 3 DAG, through its REST API v2; a password is exchanged for a token first.

    Attributes:
        type: `airflow3`.
        url: of the API server.
        dag: id of the DAG.
        inputs: the run's `conf`; the event's `data` when absent.
    """

    must_log_in: ClassVar[bool] = True
    type: Literal["airflow3"]
    dag: _Text
    inputs: _Inputs = None


class GithubReceiver(HttpReceiver):
    """A repository_dispatch event, which starts the GitHub Actions workflows that listen to it.

    Attributes:
        type: `github`.
        url: of the API, `https://api.github.com`; `https://HOST/api/v3` for GitHub Enterprise Server.
        owner: of the repository.
        repository: its name, without the owner.
        event_type: what the workflow listens to.
        inputs: the `client_payload`, at most 10 keys; the event as `event` when absent.
    """

    type: Literal["github"]
    url: HttpUrl = HttpUrl("https://api.github.com")
    token_file: _NeededToken
    owner: _Text
    repository: _Text
    event_type: Annotated[str, Field(min_length=1, max_length=100)] = "drift-retraining"
    inputs: _Inputs = None


class ArgoEventsReceiver(HttpReceiver):
    """The event, posted to a webhook event source of Argo Events.

    Attributes:
        type: `argo-events`.
        url: of the event source, with its endpoint: `http://retrain-eventsource-svc.argo-events:12000/drift`.
    """

    type: Literal["argo-events"]
    token_file: _Token = None


class ArgoWorkflowsReceiver(HttpReceiver):
    """The event, posted to the event endpoint of the Argo Server, where a WorkflowEventBinding picks it up.

    Attributes:
        type: `argo-workflows`.
        url: of the Argo Server.
        namespace: of the binding.
        discriminator: which the binding's selector tests; may be empty.
    """

    type: Literal["argo-workflows"]
    token_file: _Token = None
    namespace: _Text
    discriminator: _Text = "drift-monitor"


class KubeflowReceiver(HttpReceiver):
    """A run of a Kubeflow pipeline, through its API v2beta1.

    Attributes:
        type: `kubeflow`.
        url: under which `/apis/v2beta1` is, such as `http://ml-pipeline.kubeflow:8888` or `https://HOST/pipeline`.
        pipeline: id of the pipeline.
        version: id of its version; the newest when absent.
        experiment: id of the experiment; the default one when absent.
        namespace: of a multi-user installation, where no experiment is given.
        inputs: the pipeline's parameters; the event's `data` as `retraining` when absent.
    """

    type: Literal["kubeflow"]
    token_file: _Token = None
    pipeline: _Text
    version: _Text | None = None
    experiment: _Text | None = None
    namespace: _Text | None = None
    inputs: _Inputs = None


class Prefect3Receiver(_Password):
    """A flow run of a Prefect 3 deployment.

    Attributes:
        type: `prefect3`.
        url: of the API, as in PREFECT_API_URL, such as `http://prefect:4200/api`.
        deployment: id of the deployment, a UUID.
        inputs: the flow's parameters; the event's `data` as `retraining` when absent.
    """

    type: Literal["prefect3"]
    deployment: _Text
    inputs: _Inputs = None


class DagsterReceiver(HttpReceiver):
    """A run of a Dagster job, through GraphQL; a run that has the retraining's tag is looked for first.

    Attributes:
        type: `dagster`.
        url: of the webserver; `https://ORGANISATION.dagster.cloud/DEPLOYMENT` for Dagster+.
        token_file: file with a user token of Dagster+; read for each message.
        job: name of the job.
        location: name of its code location.
        repository: name of its repository.
        inputs: the run config; empty when absent. The job finds the retraining's id in its tags in any case.
    """

    type: Literal["dagster"]
    token_file: Path | None = None
    job: _Text
    location: _Text
    repository: _Text = "__repository__"
    inputs: _Inputs = None


class DatabricksReceiver(_Password):
    """A run of a Databricks job.

    Attributes:
        type: `databricks`.
        url: of the workspace.
        username: client id of a service principal; goes with `password_file`.
        password_file: file with its OAuth secret; read for each message.
        job: id of the job.
        inputs: the job parameters, all text; seven of them when absent, see receivers.md.
    """

    must_log_in: ClassVar[bool] = True
    type: Literal["databricks"]
    username: Annotated[str | None, Field(min_length=1, pattern=USERNAME_PATTERN)] = None
    password_file: Path | None = None
    job: Annotated[int, Field(ge=1)]
    inputs: _Inputs = None


class SagemakerReceiver(HttpReceiver):
    """An execution of a SageMaker pipeline; botocore, from the extra `sagemaker`, finds credentials and signs.

    Attributes:
        type: `sagemaker-pipeline`.
        url: `https://api.sagemaker.REGION.amazonaws.com`, or that of a VPC endpoint.
        region: for the signature.
        profile: of the AWS configuration; botocore looks in its usual places when absent.
        pipeline: name or ARN of the pipeline.
        inputs: the pipeline's parameters, all text; seven of them when absent, see receivers.md.
    """

    type: Literal["sagemaker-pipeline"]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    profile: _Text | None = None
    pipeline: _Text
    inputs: _Inputs = None


class JenkinsReceiver(HttpReceiver):
    """A build of a parameterised Jenkins job.

    Attributes:
        type: `jenkins`.
        url: of Jenkins, or of a folder in it: `https://jenkins.example/job/team`.
        username: whose API token is used.
        password_file: file with the API token; read for each message.
        job: name of the job.
        inputs: the build's parameters; seven of them when absent, see receivers.md.
    """

    type: Literal["jenkins"]
    username: Annotated[str, Field(min_length=1, pattern=USERNAME_PATTERN)]
    password_file: Path
    job: _Text
    inputs: _Inputs = None


class AlertmanagerReceiver(_Password):
    """Alerts for Prometheus' Alertmanager, one for each lane of a monitor.

    Attributes:
        type: `alertmanager`.
        url: of one Alertmanager; of a cluster, each needs a receiver of its own.
        severity: a label of the alerts.
    """

    type: Literal["alertmanager"]
    severity: _Text = "warning"


class TemplateReceiver(_Password):
    """A request of your own, described in a file; see receivers.md.

    Attributes:
        type: `template`.
        url: to which the template's paths are added.
        template: the file.
        parameters: values of the parameters that the template declares.
    """

    type: Literal["template"]
    template: Path
    parameters: dict[str, JsonValue] = {}


Receiver = Annotated[
    WebhookReceiver
    | Airflow2Receiver
    | Airflow3Receiver
    | GithubReceiver
    | ArgoEventsReceiver
    | ArgoWorkflowsReceiver
    | KubeflowReceiver
    | Prefect3Receiver
    | DagsterReceiver
    | DatabricksReceiver
    | SagemakerReceiver
    | JenkinsReceiver
    | AlertmanagerReceiver
    | TemplateReceiver,
    Field(discriminator="type"),
]
SECTIONS: dict[str, type[HttpReceiver]] = {
    str(get_args(each.model_fields["type"].annotation)[0]): each for each in get_args(get_args(Receiver)[0])
}
RECEIVER_TYPES = tuple(SECTIONS)
MESSAGES_ONLY = frozenset({"alertmanager"})  # types that start nothing
BOTH = frozenset({"webhook", "template"})


def misplaced(setting: str, kind: str) -> str | None:
    """Why a receiver of a type has no place in a setting of a monitor; None when it has.

    Args:
        setting: `notify` or `retrain.receiver`.
        kind: type of the receiver.

    Example:
        >>> misplaced("retrain.receiver", "alertmanager")
        'a receiver of type alertmanager starts no pipeline: it belongs in `notify`'
    """
    if kind in BOTH:
        return None
    if setting == "notify" and kind not in MESSAGES_ONLY:
        return f"every message would start a run of this {kind} pipeline: it belongs in `retrain.receiver`"
    if setting != "notify" and kind in MESSAGES_ONLY:
        return f"a receiver of type {kind} starts no pipeline: it belongs in `notify`"
    return None
