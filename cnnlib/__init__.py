"""The library behind sparkcnn: images, image sets, feed, models, training, prediction. No Spark, no MLflow."""
