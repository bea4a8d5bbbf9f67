"""A DAG that hands back what it was told."""

from airflow.sdk import dag, task


@dag(dag_id="retrain", schedule=None, is_paused_upon_creation=False)
def retrain():
    @task
    def train(**context):
        return context["dag_run"].conf

    train()


retrain()
